"""Flat arrays of lesions and detections."""

import numpy as np

from lens_d2.evaluation.sets import BoxTruth, Tracklets, row_in_volume


def test_rows_are_counted_in_their_volume():
    assert row_in_volume(np.array([0, 0, 3, 3, 3, 5])).tolist() == [0, 1, 0, 1, 2, 0]
    assert row_in_volume(np.zeros(0, int)).shape == (0,)
    assert len(BoxTruth(["a"], np.zeros(2, int), np.zeros((2, 6)))) == 2


def test_tracklets_of_rows():
    parts = [np.array([[3, 1, 2, 3, 4, 0.5], [4, 1, 2, 3, 4, 0.75]]), np.zeros((0, 6)), np.ones((1, 6))]
    found = Tracklets.of_rows(np.array([0, 0, 1]), parts, [0.75, 0.1, 1.0])
    assert len(found) == 3 and found.slice_detection.tolist() == [0, 0, 2]
    assert found.slice_z.tolist() == [3, 4, 1] and found.scores.tolist() == [0.75, 0.1, 1]
    assert Tracklets.of_rows(np.array([0]), parts[:1]).scores.tolist() == [0.75]
    assert Tracklets.of_rows(np.zeros(0, int), []).slice_boxes.shape == (0, 4)


def test_rows_by_volume():
    truth = BoxTruth(["a", "b", "c", "d"], np.array([0, 0, 2]), np.zeros((3, 6)))
    assert [(name, rows.tolist()) for name, rows in truth.by_volume(np.arange(3))] == [
        ("a", [0, 1]), ("b", []), ("c", [2]), ("d", []),
    ]  # fmt: skip
    assert list(BoxTruth([], np.zeros(0, int), np.zeros((0, 6))).by_volume(np.zeros(0))) == []
