"""Boxes on slices become 3D proposals: the assignment, stacking, extension and fusion."""

import itertools

import numpy as np
import pytest
from helpers.slice_boxes import slice_boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.inference.tracker import BoxTracker, assign, fuse, track
from lens_d2.structures.boxes import pairwise_iou

few = settings(max_examples=30, deadline=None)


def rows(*boxes, score=0.9):
    """z, x1, y1, x2, y2 [, score] as slice boxes."""
    return np.array([[*box, score][:6] if len(box) == 5 else box for box in boxes], dtype=float)


def squares(zs, x=10.0, side=10.0, step=0.0, score=0.9):
    return [[z, x + step * i, 20, x + step * i + side, 20 + side, score] for i, z in enumerate(zs)]


def same_tracklets(one, other):
    """Whether two numberings group alike."""
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


def test_the_filter_learns_a_velocity():
    """A box that moves by a quarter of its side and more is lost by comparing neighbours, not by the filter."""
    moving = rows(
        *squares(range(8), step=1.0), *[[8 + i, 17 + 2.2 * (i + 1), 20, 27 + 2.2 * (i + 1), 30] for i in range(4)]
    )
    assert len(set(track(moving[:, 0], moving[:, 1:5], 0.75).tolist())) == 1
    assert pairwise_iou(moving[8:9, 1:5], moving[9:10, 1:5])[0, 0] < 0.75


@few
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_the_assignment_has_the_largest_sum(seed, height, width):
    rng = np.random.default_rng(seed)
    matrix = rng.uniform(0.8, 1, (height, width)) * (rng.random((height, width)) < 0.7)
    row, column = assign(matrix, 0.8)
    assert len(set(row)) == len(row) == len(set(column)) and (matrix[row, column] >= 0.8).all()
    small, large = sorted((height, width))
    oriented = matrix if height == small else matrix.T
    best = max(sum(oriented[i, p[i]] for i in range(small)) for p in itertools.permutations(range(large), small))
    assert matrix[row, column].sum() == pytest.approx(best)


def test_rivals_are_assigned_together():
    """Best first would take the pair of 0.95 and leave the others alone."""
    row, column = assign(np.array([[0.95, 0.9], [0.85, 0.1]]), 0.8)
    assert set(zip(row, column, strict=True)) == {(0, 1), (1, 0)}


@few
@given(slice_boxes(), st.floats(0.3, 0.95))
def test_a_tracklet_has_a_box_on_each_of_its_slices(boxes, gate):
    tracklet = track(boxes[:, 0], boxes[:, 1:5], gate)
    assert set(tracklet.tolist()) == set(range(len(set(tracklet.tolist()))))
    for number in set(tracklet.tolist()):
        z = np.sort(boxes[tracklet == number, 0])
        assert (np.diff(z) == 1).all()


@few
@given(slice_boxes(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(boxes, random):
    order = np.array(random.sample(range(len(boxes)), len(boxes)), dtype=int)
    _, first = np.unique(boxes[:, :5], axis=0, return_index=True)  # which of two equal boxes goes on is anyone's
    order = order[np.isin(order, first)]
    boxes_sorted = boxes[np.sort(order)]
    jitter = np.arange(len(boxes_sorted))[:, None] * np.array([1e-4, 2e-4, 1.3e-4, 2.7e-4])  # no two alike
    boxes_sorted[:, 1:5] += jitter
    place = np.argsort(np.argsort(order))
    one = track(boxes_sorted[:, 0], boxes_sorted[:, 1:5], 0.8)
    other = track(boxes_sorted[place, 0], boxes_sorted[place, 1:5], 0.8)
    assert same_tracklets(one[place], other)


def test_the_gate_is_inclusive_and_ends_a_tracklet():
    """Boxes of 10 and 8 pixels in width: an IoU of exactly 0.8."""
    boxes = rows([0, 0, 0, 10, 10], [1, 0, 0, 8, 10])
    assert track(boxes[:, 0], boxes[:, 1:5], 0.8).tolist() == [0, 0]
    assert track(boxes[:, 0], boxes[:, 1:5], 0.81).tolist() == [0, 1]
    assert track(boxes[:, 0] * 2, boxes[:, 1:5], 0.8).tolist() == [0, 1]


def test_only_boxes_above_t_g_are_stacked():
    found = BoxTracker()(rows(*squares(range(3), score=0.11), *squares([3, 4], score=0.1)), 10)
    assert len(found) == 1 and found.boxes[0, [2, 5]].tolist() == [0, 3]
    assert len(BoxTracker()(np.zeros((0, 6)), 10)) == 0
    assert len(BoxTracker()(rows([1, 5, 5, 5, 9]), 10)) == 0  # a box without area


def test_extended_by_a_slice_where_the_volume_goes_on():
    found = BoxTracker()(rows(*squares(range(3, 6)), *squares([0, 1], x=60)), 7)
    assert found.boxes[:, [2, 5]].tolist() == [[0, 2], [2, 6]]
    assert found.boxes_of(1)[:, 0].tolist() == [2, 3, 4, 5, 6]
    assert found.boxes_of(1)[[0, -1], 5].tolist() == [0, 0]  # nothing was detected there
    np.testing.assert_array_equal(found.boxes_of(1)[0, 1:5], found.boxes_of(1)[1, 1:5])
    assert BoxTracker(extend=0)(rows(*squares(range(3, 6))), 7).boxes[0, [2, 5]].tolist() == [3, 5]


@pytest.mark.parametrize("gap, count", [(0, 1), (1, 1), (2, 2)])
def test_fused_where_extended_stacks_meet(gap, count):
    """After slice 2: with no slice or one between them extended stacks share one, with two they do not."""
    start = 3 + gap
    boxes = rows(*squares(range(3)), *squares(range(start, start + 3), x=10.5, side=9.5))
    found = BoxTracker(iou=0.99)(boxes, 20)
    inner = found.boxes[:, [2, 5]].tolist()
    assert len(found) == count
    assert inner == ([[0, start + 3]] if count == 1 else [[0, 3], [start - 1, start + 3]])
    if gap == 1:
        np.testing.assert_allclose(found.slice_boxes[3], [3, 10.25, 20, 20, 29.75, 0])


def test_not_fused_with_less_overlap():
    boxes = rows(*squares(range(3)), *squares(range(4, 7), x=12))
    assert len(BoxTracker()(boxes, 20)) == 2
    assert len(BoxTracker(fuse_iou=0.6)(boxes, 20)) == 1


def test_the_nearest_ends_are_fused_first():
    """A stack that ends on slice 2 meets one on slice 3 and another, more alike, on 4: all are one."""
    boxes = rows(*squares(range(3)), [3, 10, 20, 20, 28.5], [4, 10, 20, 20, 30], [5, 10, 20, 20, 30])
    found = BoxTracker(iou=0.99)(boxes, 20)
    assert len(found) == 1 and (found.slice_boxes[1:6, 5] > 0).all()


@few
@given(slice_boxes())
def test_fusing_again_changes_nothing(boxes):
    tracklet = track(boxes[:, 0], boxes[:, 1:5], 0.8)
    order = np.lexsort((boxes[:, 0], tracklet))
    once = fuse(boxes[order], tracklet[order], 0.8)
    again = fuse(once[0], once[1], 0.8)
    assert same_tracklets(once[1], again[1])
    np.testing.assert_array_equal(once[0], again[0])
    assert sum(once[2]) + len(boxes) == len(once[0])


@few
@given(slice_boxes())
def test_proposals_hold_every_box_once(boxes):
    found = BoxTracker(score_thresh=0.3)(boxes, 5)
    kept = boxes[boxes[:, 5] >= 0.3]
    detected = found.slice_boxes[found.slice_boxes[:, 5] > 0]
    assert sorted(map(tuple, detected)) == sorted(map(tuple, kept))
    for number in range(len(found)):
        own = found.boxes_of(number)
        assert own[:, 0].tolist() == list(range(int(found.boxes[number, 2]), int(found.boxes[number, 5]) + 1))
        assert found.scores[number] == own[:, 5].max()
        for axis in range(4):
            least, most = own[:, 1 + axis].min(), own[:, 1 + axis].max()
            assert least - 1e-9 <= found.boxes[number, [0, 1, 3, 4][axis]] <= most + 1e-9


def test_an_iou_of_zero_is_refused():
    with pytest.raises(ValueError, match="TEST.TRACKER"):
        BoxTracker(iou=0.0)
