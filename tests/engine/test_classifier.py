"""Training of the classifiers of detections and proposals."""

import numpy as np
import pytest
import torch
from helpers.classifiers import fpr_blocks, fpr_cfg, lpc_blocks, lpc_cfg

from lens_d2.data.cache import build_cache
from lens_d2.engine.classifier import train_fpr, train_lpc
from lens_d2.inference.rescoring import classify, load_classifier, score_proposals


@pytest.fixture
def cfg(tmp_path):
    return fpr_cfg(tmp_path)


@pytest.fixture
def blocks(tmp_path):
    return fpr_blocks(tmp_path)


def test_lens_takes_another_classifier_by_config_alone(cfg, blocks):
    records, detections = blocks
    fpr = cfg.MODEL.FPR
    fpr.NAME, fpr.LOSS, fpr.SOLVER.MAX_ITER = "GLC", "cross_entropy", 2
    fpr.WEIGHTS = train_fpr(cfg, records, detections)
    assert type(load_classifier(cfg)).__name__ == "GlobalLocalClassifier"


def test_it_learns_to_tell_blocks_from_nothing_and_resumes(cfg, blocks, tmp_path):
    records, detections = blocks
    path = train_fpr(cfg, records, detections)
    cfg.MODEL.FPR.WEIGHTS = path
    classifier, cache = load_classifier(cfg), build_cache(cfg)
    for record in records:
        found = detections[record["volume"]]
        scores = classify(classifier, cache.open(record), found.boxes, batch_size=3)
        assert scores.shape == (len(found),) and scores[:2].min() > 0.5 > scores[2:].max()
    before = torch.load(path, weights_only=True)
    assert before["iteration"] == 29
    # Finished: nothing is trained again. Longer: goes on after iteration 29.
    assert train_fpr(cfg, records, detections, resume=True) == path
    assert torch.load(path, weights_only=True)["iteration"] == 29
    cfg.MODEL.FPR.SOLVER.MAX_ITER = 32
    train_fpr(cfg, records, detections, resume=True)
    after = torch.load(path, weights_only=True)
    assert after["iteration"] == 31
    steps = {int(state["step"]) for state in after["trainer"]["optimizer"]["state"].values()}
    assert steps == {32}


def test_an_interrupted_training_ends_as_an_uninterrupted_one(cfg, blocks, tmp_path):
    records, detections = blocks
    cfg.MODEL.FPR.SOLVER.MAX_ITER, cfg.MODEL.FPR.SOLVER.CHECKPOINT_PERIOD = 4, 2
    whole = torch.load(train_fpr(cfg, records, detections), weights_only=True)["model"]
    folder = tmp_path / "output" / "fpr"
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    resumed = torch.load(train_fpr(cfg, records, detections, resume=True), weights_only=True)["model"]
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, msg=key)


def test_a_proposal_classifier_learns_to_tell_blocks_from_nothing(tmp_path):
    cfg, (records, positives, negatives) = lpc_cfg(tmp_path), lpc_blocks(tmp_path)
    cfg.MODEL.LPC.WEIGHTS = train_lpc(cfg, records, positives, negatives)
    classifier = load_classifier(cfg, "LPC")
    of_lesions = dict(score_proposals(cfg, classifier, records, positives))
    assert list(of_lesions) == [r["volume"] for r in records]
    of_others = dict(
        score_proposals(cfg, classifier, records[:2], {records[0]["volume"]: np.zeros((0, 6)), **negatives})
    )
    assert min(scores.min() for scores in of_lesions.values()) > 0.5
    assert max(scores.max() for scores in of_others.values()) < 0.5
    assert [scores.shape for _, scores in score_proposals(cfg, classifier, records, {})] == [(0,)] * 3


def test_an_interrupted_training_of_a_proposal_classifier_ends_as_an_uninterrupted_one(tmp_path):
    cfg, blocks = lpc_cfg(tmp_path), lpc_blocks(tmp_path)
    cfg.MODEL.LPC.SOLVER.MAX_ITER, cfg.MODEL.LPC.SOLVER.CHECKPOINT_PERIOD = 4, 2
    whole = torch.load(train_lpc(cfg, *blocks), weights_only=True)["model"]
    folder = tmp_path / "output" / "lpc"
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    path = train_lpc(cfg, *blocks, resume=True)
    resumed = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    # The next round goes on from these weights, in a folder of its own.
    cfg.OUTPUT_DIR, cfg.MODEL.LPC.SOLVER.MAX_ITER, cfg.MODEL.LPC.SOLVER.BASE_LR = str(tmp_path / "next"), 1, 0.0
    tuned = torch.load(train_lpc(cfg, *blocks, start=path), weights_only=True)["model"]
    assert torch.equal(tuned["score.weight"], whole["score.weight"])
