"""The metric study: stacking, incomplete RECIST, correlations, the violins' values."""

import numpy as np
import pytest

from lens_d2.evaluation.sets import BoxTruth, Tracklets
from lens_d2.evaluation.study import METRICS, StudyTruth, best_iou, concordance, on_key_slices, pearson, stack

A, B = "000001_01_01_001-020", "000002_01_01_001-020"


def tracklets(*detections):
    """Of (volume, [(z, x1, y1, x2, y2, score), ...])."""
    rows = np.array([row for _, slices in detections for row in slices], dtype=float).reshape(-1, 6)
    owner = np.repeat(np.arange(len(detections)), [len(slices) for _, slices in detections])
    best = np.array([max(row[5] for row in slices) for _, slices in detections])
    return Tracklets(np.array([v for v, _ in detections]), best, owner, rows[:, 0], rows[:, 1:5], rows[:, 5])


def test_stacked_boxes_weigh_slices_by_score():
    found = stack(tracklets((0, [(4, 0, 0, 10, 10, 0.9), (5, 4, 0, 14, 10, 0.3)]), (1, [(2, 1, 2, 3, 4, 0.0)])))
    assert found.boxes.tolist() == [pytest.approx([1, 0, 4, 11, 10, 5]), [1, 2, 2, 3, 4, 2]]
    assert found.scores.tolist() == [0.9, 0.0] and found.volume.tolist() == [0, 1]


def test_incomplete_recist_is_about_marked_slices_alone():
    marks = BoxTruth(
        [A, B], np.array([0, 0, 1]), np.array([[0.0, 0, 4, 9, 9, 4], [50, 50, 4, 59, 59, 4], [0, 0, 7, 9, 9, 7]])
    )
    found = tracklets(
        (0, [(3, 0, 0, 9, 9, 0.9), (4, 0, 0, 9, 9, 0.5)]),
        (0, [(9, 0, 0, 9, 9, 0.8)]),
        (1, [(7, 30, 0, 39, 9, 0.6)]),
    )
    truth, single = on_key_slices(found, marks)
    assert truth.volumes == [f"{A}, slice 4", f"{B}, slice 7"] and truth.volume.tolist() == [0, 0, 1]
    assert single.volume.tolist() == [0, 1] and single.scores.tolist() == [0.5, 0.6]
    # One of three marks is found.
    assert METRICS["incomplete RECIST"](StudyTruth(marks, marks, marks), found)[-1] == pytest.approx(1 / 3)


def test_a_metric_that_agrees_correlates_with_1():
    recalls = {"a": {m: [0.1, 0.2, 0.4] for m in METRICS}, "b": {m: [0.3, 0.5, 0.9] for m in METRICS}}
    recalls["b"]["P3D"] = [0.9, 0.1, 0.0]
    found = concordance(recalls)
    assert found["IoBB"] == pytest.approx(1.0) and found["P3D"] < 0.5 and "3D IoU" not in found
    assert pearson(np.array([1.0, 1.0]), np.array([0.0, 1.0])) is None


def test_best_iou_is_of_lesions_that_are_met():
    truth = BoxTruth(
        [A, B], np.array([0, 0, 1]), np.array([[0.0, 0, 4, 9, 9, 5], [99, 99, 1, 120, 120, 2], [0, 0, 4, 9, 9, 5]])
    )
    found = stack(tracklets((0, [(4, 0, 0, 9, 9, 0.5)]), (0, [(4, 0, 0, 9, 9, 0.5), (5, 0, 0, 9, 9, 0.5)])))
    assert best_iou(truth, found).tolist() == [1.0]
