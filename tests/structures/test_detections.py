"""The detections of a sub-volume and their slice boxes."""

import numpy as np

from lens_d2.structures.detections import VolumeDetections


def test_slice_boxes_of_a_detection_in_their_order():
    rows = np.array([[4, 0, 0, 1, 1, 0.2], [9, 0, 0, 1, 1, 0.9], [5, 0, 0, 1, 1, 0.9]])
    found = VolumeDetections(np.zeros((2, 6)), np.zeros(2), rows, np.array([0, 1, 0]))
    assert len(found) == 2
    assert found.boxes_of(0)[:, 0].tolist() == [4, 5] and found.boxes_of(1)[:, 0].tolist() == [9]


def test_no_detections_have_the_shapes_of_some():
    nothing = VolumeDetections()
    assert len(nothing) == 0 and nothing.boxes.shape == nothing.boxes_of(0).shape == (0, 6)


def test_some_of_them_keep_their_slices_and_scores():
    rows = np.array([[4, 0, 0, 1, 1, 0.2], [9, 0, 0, 1, 1, 0.9], [5, 0, 0, 1, 1, 0.9]])
    found = VolumeDetections(np.arange(18.0).reshape(3, 6), np.array([0.9, 0.8, 0.7]), rows, np.array([0, 1, 2]))
    found.expert_scores = np.eye(3)
    some = found.select(np.array([True, False, True]))
    assert some.boxes.tolist() == found.boxes[[0, 2]].tolist() and some.scores.tolist() == [0.9, 0.7]
    assert some.boxes_of(0).tolist() == rows[:1].tolist() and some.boxes_of(1).tolist() == rows[2:].tolist()
    assert some.expert_scores.tolist() == [[1, 0, 0], [0, 0, 1]] and some.fpr_scores is None
    assert len(found.select(np.zeros(3, bool))) == len(VolumeDetections().select(np.zeros(0, bool))) == 0


def test_3d_boxes_alone_get_their_outline_on_each_slice():
    found = VolumeDetections(np.array([[1.0, 2, 3, 5, 6, 4], [0, 0, 7.2, 9, 9, 7.4]]), np.array([0.9, 0.5]))
    assert found.slice_boxes.tolist() == [[3, 1, 2, 5, 6, 0.9], [4, 1, 2, 5, 6, 0.9], [7, 0, 0, 9, 9, 0.5]]
    assert found.slice_detection.tolist() == [0, 0, 1] and len(VolumeDetections().slice_boxes) == 0
