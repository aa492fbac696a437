"""Detections at several scales become one set."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from scipy.special import expit, logit

from lens_d2.inference.multi_scale import fuse_scales


def found(size, *boxes):
    """Instances of one slice; a box is x1, y1, x2, y2, score."""
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)
    scores = table[:, 4]
    return Instances(size, pred_boxes=Boxes(table[:, :4]), scores=scores, expert_scores=scores[:, None])


def test_overlapping_boxes_become_the_better_one_and_its_odds_the_mean():
    plain = found((40, 80), (10, 10, 20, 20, 0.6), (50, 10, 60, 20, 0.9))
    fine = found((60, 120), (15, 15, 30, 33, 0.8), (90, 45, 105, 60, 0.5))
    (fused,) = fuse_scales([[plain], [fine]], iou=0.5, topk=10, floor=0.01)
    assert fused.image_size == (40, 80)
    expected = {  # its box, and the scores at both scales
        (10, 10, 20, 22): (0.6, 0.8),
        (50, 10, 60, 20): (0.9, 0.01),
        (60, 30, 70, 40): (0.01, 0.5),
    }
    assert (fused.scores.diff() <= 0).all()
    for box, score, own in zip(fused.pred_boxes.tensor, fused.scores, fused.expert_scores, strict=True):
        scores = expected.pop(tuple(box.round().int().tolist()))
        assert float(score) == pytest.approx(expit(logit(np.array(scores)).mean()), abs=1e-5)
        assert float(own) == pytest.approx(max(scores))
    assert not expected


def test_without_a_floor_a_box_of_one_scale_keeps_a_score():
    plain, fine = found((40, 80), (10, 10, 20, 20, 0.9)), found((40, 80), (50, 10, 60, 20, 0.99))
    (fused,) = fuse_scales([[plain], [fine]], iou=0.5, topk=10, floor=0.0)
    assert (fused.scores > 0).all() and fused.pred_boxes.tensor[0].tolist() == [50, 10, 60, 20]


def test_slices_without_boxes_and_the_limit():
    nothing, three = found((8, 8)), found((8, 8), (0, 0, 2, 2, 0.5), (4, 4, 6, 6, 0.7), (0, 5, 2, 7, 0.6))
    empty, limited = fuse_scales([[nothing, nothing], [nothing, three]], iou=0.5, topk=2, floor=0.01)
    assert len(empty) == 0 and len(limited) == 2
