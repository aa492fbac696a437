"""Final scores, and the loading of classifiers."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.classifiers import fpr_blocks, fpr_cfg
from hypothesis import given
from hypothesis import strategies as st

from lens_d2.inference.rescoring import load_classifier, mean_log_odds, rescore
from lens_d2.io.errors import DataError
from lens_d2.modeling import build_classifier
from lens_d2.structures.detections import VolumeDetections


@pytest.fixture
def cfg(tmp_path):
    return fpr_cfg(tmp_path)


@pytest.fixture
def blocks(tmp_path):
    return fpr_blocks(tmp_path)


def test_final_scores_are_means(blocks):
    _, detections = blocks
    found = next(iter(detections.values()))
    fpr = np.linspace(0, 1, len(found))
    again = rescore(found, fpr)
    np.testing.assert_allclose(again.scores, (0.5 + fpr) / 2)
    np.testing.assert_allclose(again.slice_boxes[:, 5], (0.5 + fpr[found.slice_detection]) / 2)
    np.testing.assert_array_equal(again.fpr_scores, fpr)
    np.testing.assert_array_equal(found.scores, 0.5)
    assert len(rescore(VolumeDetections(), np.zeros(0))) == 0


def test_slices_where_nothing_was_detected_keep_the_score_0():
    box = np.array([[0.0, 0, 1, 9, 9, 2]])
    slices = np.array([[1.0, 0, 0, 9, 9, 0.6], [2, 0, 0, 9, 9, 0]])
    again = rescore(VolumeDetections(box, np.array([0.6]), slices, np.zeros(2, int)), np.ones(1))
    assert again.slice_boxes[:, 5].tolist() == [0.8, 0]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_mean_of_log_odds(pairs):
    """Odds multiply, and the final ones are the root; what is certain stays a probability."""
    scores, fpr = np.array(pairs).T
    final = mean_log_odds(scores, fpr)
    assert ((final > 0) & (final < 1)).all()
    sure = np.clip((scores, fpr), 1e-6, 1 - 1e-6)
    np.testing.assert_allclose(final / (1 - final), np.sqrt(np.prod(sure / (1 - sure), axis=0)), rtol=1e-6)


def test_log_odds_tell_scores_near_one_apart(blocks):
    """Odds of 999 against 99 weigh more than a classifier's 0.5 against 0.6; in the mean of scores they do not."""
    found = next(iter(blocks[1].values()))
    scores = np.where(np.arange(len(found)) == 0, 0.999, 0.99)
    fpr = np.where(np.arange(len(found)) == 0, 0.5, 0.6)
    found = dataclasses.replace(found, scores=scores)
    assert rescore(found, fpr, mean_log_odds).scores.argmax() == 0
    assert rescore(found, fpr).scores.argmax() > 0


def test_a_checkpoint_of_another_architecture_is_refused(cfg, tmp_path):
    cfg.MODEL.FPR.WEIGHTS = str(tmp_path / "wide.pth")
    torch.save({"model": build_classifier(cfg).state_dict()}, cfg.MODEL.FPR.WEIGHTS)
    cfg.MODEL.FPR.WIDTH = 8
    with pytest.raises(DataError, match="wide.pth.*another architecture"):
        load_classifier(cfg)
    cfg.MODEL.FPR.WEIGHTS = str(tmp_path / "absent.pth")
    with pytest.raises(DataError, match="no such"):
        load_classifier(cfg)
