"""Linking of slice boxes to tracklets and 3D boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.inference.linking import (
    OverlapLinker,
    link_slices,
    stack_tracklets,
    to_native_slices,
)
from lens_d2.inference.tracker import BoxTracker
from lens_d2.structures.detections import VolumeDetections

BOX = np.array([10.0, 10, 30, 30])


def test_boxes_on_neighbouring_slices_above_the_threshold_are_one_lesion():
    slices = np.array([3, 4, 5, 7, 4])
    boxes = np.stack([BOX, BOX + 1, BOX + 2, BOX + 2, BOX + 100])
    assert link_slices(slices, boxes, 0.5).tolist() == [0, 0, 0, 2, 1]  # slice 6 is missing


def test_the_threshold_itself_is_not_enough():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    assert link_slices(np.array([0, 1]), boxes, 0.5).tolist() == [0, 1]
    assert link_slices(np.array([0, 1]), boxes, 0.49).tolist() == [0, 0]


def test_a_box_goes_to_its_best_neighbour():
    boxes = np.stack([BOX, BOX + [0, 0, 4, 4], BOX + [0, 0, 1, 1]])
    assert link_slices(np.array([0, 1, 1]), boxes, 0.5).tolist() == [0, 1, 0]


def test_no_boxes():
    assert link_slices(np.zeros(0, int), np.zeros((0, 4)), 0.5).shape == (0,)
    boxes, scores = stack_tracklets(np.zeros(0), np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert boxes.shape == (0, 6) and scores.shape == (0,)
    for linker in (OverlapLinker(), BoxTracker()):
        linked = linker(np.zeros((0, 6)), 3, np.zeros((0, 2)))
        empty = to_native_slices(linked, np.arange(3.0), np.arange(3.0))
        assert len(empty) == 0 and empty.boxes.shape == (0, 6) and empty.slice_boxes.shape == (0, 6)
        assert empty.expert_scores.shape == (0, 2)


def test_stacking_weighs_by_score_and_takes_the_highest():
    boxes = np.stack([BOX, BOX + 4.0])
    stacked, scores = stack_tracklets(np.array([5, 6]), boxes, np.array([0.75, 0.25]), np.array([0, 0]))
    np.testing.assert_allclose(stacked, [[11, 11, 5, 31, 31, 6]])
    assert scores.tolist() == [0.75]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(0, 40)), max_size=40))
def test_a_tracklet_has_one_box_on_each_of_consecutive_slices(rows):
    slices = np.array([z for z, _, _ in rows], dtype=int)
    boxes = np.array([[x, y, x + 20, y + 20] for _, x, y in rows], dtype=float).reshape(-1, 4)
    tracklet = link_slices(slices, boxes, 0.5)
    for number in np.unique(tracklet):
        own = np.sort(slices[tracklet == number])
        assert (np.diff(own) == 1).all()
    assert set(tracklet) == set(range(len(set(tracklet))))


# Onto native slices


def linked(level, scores, boxes=None) -> VolumeDetections:
    """One detection of the boxes on these slices."""
    boxes = np.tile(BOX, (len(level), 1)) if boxes is None else boxes
    return OverlapLinker()(np.column_stack([level, boxes, scores]), 11, np.ones((len(level), 2)))


@pytest.mark.parametrize("interval, expected", [(2.0, (1, 3)), (1.0, (1, 6)), (5.0, (1, 1)), (20.0, (0, 0))])
def test_slices_become_the_native_ones_whose_centres_they_cover(interval, expected):
    native_mm = np.arange(0, 20.1, interval)
    found = to_native_slices(linked([1, 2, 3], [0.2, 0.9, 0.3]), np.arange(11) * 2.0, native_mm)  # from 1 to 7 mm
    assert len(found) == 1 and found.scores.tolist() == [0.9]
    first, last = found.boxes[0, [2, 5]]
    assert (first, last) == expected
    assert found.slice_boxes[:, 0].tolist() == list(range(int(first), int(last) + 1))


@pytest.mark.parametrize(("count", "interval"), [(14, 5.0), (9, 3.0), (10, 2.5), (12, 1.25)])
def test_a_lesion_on_the_last_slice_reaches_the_end_of_the_volume(count, interval):
    """The last native slice may lie more than half an interval behind the last interpolated one."""
    native_mm = np.arange(count) * interval
    slice_mm = np.arange(int(native_mm[-1] / 2.0) + 1) * 2.0
    last = len(slice_mm) - 1
    found = to_native_slices(linked([last - 1, last], [0.2, 0.9]), slice_mm, native_mm)
    assert found.boxes[0, 5] == count - 1 == found.slice_boxes[-1, 0]
    before = to_native_slices(linked([last - 2, last - 1], [0.2, 0.9]), slice_mm, native_mm)
    assert before.boxes[0, 5] < count - 1


def test_slices_that_count_downwards_keep_their_own_numbers():
    found = linked([1, 2], [0.9, 0.5], np.stack([BOX, BOX + 1]))
    found = to_native_slices(found, np.arange(10) * 2.0, np.arange(10)[::-1] * 2.0)
    assert found.boxes[0, [2, 5]].tolist() == [7, 8]
    np.testing.assert_allclose(found.slice_boxes[:, :2], [[7, 11], [8, 10]])
    assert found.slice_boxes[:, 5].tolist() == [0.5, 0.9]


@given(
    st.integers(0, 20),
    st.lists(st.floats(0.05, 1), min_size=1, max_size=20),
    st.floats(0.5, 8),
)
def test_the_highest_score_comes_along(first, scores, interval):
    """Wherever the best box lies between native slices, far apart or close together."""
    slice_mm = np.arange(first + len(scores) + 1) * 2.0
    found = linked(np.arange(first, first + len(scores)), np.array(scores))
    native = to_native_slices(found, slice_mm, np.arange(0, slice_mm[-1] + interval, interval))
    assert native.slice_boxes[:, 5].max() == found.scores[0] == max(scores)
    assert native.slice_boxes[:, 0].tolist() == list(range(*(native.boxes[0, [2, 5]] + [0, 1]).astype(int)))


@given(st.integers(1, 30), st.floats(0.5, 8), st.booleans())
def test_native_slices_stay_as_they_are(count, interval, downwards):
    slice_mm = np.arange(count) * interval
    found = linked(np.arange(count), np.linspace(0.2, 0.9, count))
    native = to_native_slices(found, slice_mm, slice_mm[::-1] if downwards else slice_mm)
    scores = native.slice_boxes[::-1, 5] if downwards else native.slice_boxes[:, 5]
    np.testing.assert_array_equal(scores, found.slice_boxes[:, 5])


def test_the_best_box_is_not_lost_between_slices_of_5_mm():
    """Boxes at 2, 4 and 6 mm, the best one farthest from the native slice at 5 mm."""
    found = to_native_slices(linked([1, 2, 3], [0.9, 0.4, 0.4]), np.arange(11) * 2.0, np.arange(5) * 5.0)
    assert found.slice_boxes[:, 0].tolist() == [1] and found.slice_boxes[:, 5].tolist() == [0.9]


# A lesion that grows from slice to slice


def test_a_lesion_that_grows_is_one_by_overlap_and_several_by_the_tracker():
    """A disc in depth: its side is 12 pixels on the first slice and 22 on the last."""
    sides = np.array([12, 13, 15, 18, 22], dtype=float)
    boxes = np.column_stack(
        [np.arange(5), 50 - sides / 2, 50 - sides / 2, 50 + sides / 2, 50 + sides / 2, sides / 40]
    )
    scores = boxes[:, 5:]
    assert len(OverlapLinker()(boxes, 20, scores)) == 1
    found = BoxTracker(extend=0)(boxes, 20, scores)
    assert len(found) > 1 and found.expert_scores[:, 0].tolist() == found.scores.tolist()
