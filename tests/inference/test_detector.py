"""The detector that everyone calls: inference, rescored if a classifier is configured."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.classifiers import fpr_blocks, fpr_cfg

from lens_d2.inference.detector import RescoredInference, absent_classifier, build_inference
from lens_d2.inference.volume import VolumeInference
from lens_d2.modeling import build_classifier
from lens_d2.structures.detections import VolumeDetections


@pytest.fixture
def cfg(tmp_path):
    return fpr_cfg(tmp_path)


@pytest.fixture
def blocks(tmp_path):
    return fpr_blocks(tmp_path)


def answering(found):
    """Whole-volume inference that gives these detections, volume after volume."""
    rest = iter(found)
    return SimpleNamespace(detect=lambda volume: next(rest))


def test_how_samples_are_drawn_says_nothing_of_what_is_rescored(cfg, blocks):
    """Rescoring takes every detection, in the order in which they are."""
    records, detections = blocks
    cfg.MODEL.FPR.FP_SCORE_THRESH, cfg.MODEL.FPR.FP_SCORE_POWER = 0.9, 2.0
    inference = answering({"fused": detections[r["volume"]]} for r in records)
    wrapped = RescoredInference(cfg, inference, build_classifier(cfg).eval())
    for record, output in zip(records, wrapped(records), strict=True):
        np.testing.assert_array_equal(output["detections"]["fused"].boxes, detections[record["volume"]].boxes)


def test_inference_with_rescoring_answers_as_without(cfg, blocks):
    records, detections = blocks
    inference = answering({"fused": detections[r["volume"]], "luna": VolumeDetections()} for r in records)
    wrapped = RescoredInference(cfg, inference, build_classifier(cfg).eval())
    for record, output in zip(records, wrapped(records), strict=True):
        plain = detections[record["volume"]]
        assert output["volume"] == record["volume"] and set(output["detections"]) == {"fused", "luna"}
        fused = output["detections"]["fused"]
        np.testing.assert_array_equal(fused.boxes, plain.boxes)
        np.testing.assert_allclose(fused.scores, (plain.scores + fused.fpr_scores) / 2)
        assert output["detections"]["luna"].fpr_scores is None


def test_evaluation_rescores_where_a_classifier_is_configured(cfg, tmp_path):
    detector = torch.nn.Identity()
    assert isinstance(build_inference(cfg, detector), VolumeInference)
    torch.save({"model": build_classifier(cfg).state_dict()}, tmp_path / "fpr.pth")
    cfg.MODEL.FPR.WEIGHTS = str(tmp_path / "fpr.pth")
    cfg.MODEL.LENS.OUTPUT = "luna"
    rescored = build_inference(cfg, detector)
    assert isinstance(rescored.inference, VolumeInference) and rescored.outputs == ("luna",)
    assert not rescored.classifier.training


def test_an_unknown_way_of_combining_scores_is_named(cfg):
    cfg.MODEL.FPR.COMBINE = "median"
    with pytest.raises(ValueError, match="MODEL.FPR.COMBINE is 'median': give one of mean, mean_log_odds"):
        RescoredInference(cfg, answering([]), build_classifier(cfg))


def test_a_config_whose_classifier_is_not_named_is_told_of(cfg):
    """The detector's file does not hold the classifier that the stages of its config have trained."""
    cfg.STAGES, cfg.MODEL.FPR.WEIGHTS = ("train", "fpr"), ""
    assert "MODEL.FPR.WEIGHTS names none: scores are the detector's own" in absent_classifier(cfg)
    cfg.MODEL.FPR.WEIGHTS = "fpr.pth"
    assert absent_classifier(cfg) == ""
    cfg.STAGES, cfg.MODEL.FPR.WEIGHTS = ("train",), ""
    assert absent_classifier(cfg) == ""
