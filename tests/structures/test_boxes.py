"""Overlaps of boxes, the boxes around others, and the slices that they cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_d2.structures.boxes import (
    boxes_through,
    expand_ranges,
    flat_boxes3d,
    hull,
    key_slice_box,
    match_best_first,
    paired_iou,
    pairwise_iou,
    slices_of,
)
from lens_d2.structures.detections import VolumeDetections, best_slice_boxes


def test_iou_of_known_boxes():
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 20, 30]])
    np.testing.assert_allclose(pairwise_iou(boxes, boxes[:2]), [[1, 1 / 3], [1 / 3, 1], [0, 0]])


def test_pairs_are_compared_as_all_with_all():
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 10, (30, 2, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 10, (30, 2, 2))], axis=2)
    expected = np.diag(pairwise_iou(boxes[:, 0], boxes[:, 1]))
    assert paired_iou(boxes[:, 0], boxes[:, 1]).tolist() == expected.tolist()


def test_hull_of_slice_boxes():
    boxes = np.array([[4, 10, 20, 30, 40, 0.9], [5, 8, 22, 29, 41, 0.5]])
    assert hull(boxes).tolist() == [8, 20, 4, 30, 41, 5]
    assert hull(boxes[:1]).tolist() == flat_boxes3d(boxes[:1, 0], boxes[:1, 1:5])[0].tolist()
    assert flat_boxes3d([], []).shape == (0, 6)


@pytest.mark.parametrize(
    ("z1", "z2", "expected"),
    [(2, 4, [2, 3, 4]), (1.6, 4.4, [2, 3, 4]), (3, 3, [3]), (2.3, 2.6, [2]), (2.6, 2.8, [3]), (-0.5, 0.5, [0])],
)
def test_a_3d_box_covers_the_slices_whose_centres_it_holds_or_the_nearest(z1, z2, expected):
    rows, slices = slices_of(np.array([[0, 0, z1, 9, 9, z2], [0, 0, 7, 9, 9, 7]]))
    assert slices.tolist() == [*expected, 7] and rows.tolist() == [*[0] * len(expected), 1]


def test_a_3d_box_on_the_slices_of_its_sub_volume():
    assert boxes_through([1, 2, -0.5, 3, 4, 1.5], 7).tolist() == [[0, 1, 2, 3, 4], [1, 1, 2, 3, 4]]
    assert boxes_through([1, 2, 5.5, 3, 4, 6.5], 7).tolist() == [[6, 1, 2, 3, 4]]
    assert boxes_through([1, 2, 6.6, 3, 4, 6.9], 7).tolist() == []
    for z, nearest in ((-0.5, 0), (6.5, 6)):
        assert boxes_through([1, 2, z, 3, 4, z], 7).tolist() == [[nearest, 1, 2, 3, 4]]


def test_key_slice_box_is_the_middle_one_without_a_key_slice():
    boxes = [[z, z, 0.0, 10.0, 10.0] for z in (3, 4, 5)]
    assert key_slice_box({"boxes": boxes, "key_slice": 3})[:2].tolist() == [3, 3]
    assert key_slice_box({"boxes": boxes, "key_slice": None})[0] == 4
    assert key_slice_box({"boxes": boxes, "key_slice": 9})[0] == 4  # mined boxes alone may lie elsewhere


def test_best_slice_boxes_are_the_first_of_the_highest_scores():
    rows = np.array([[4, 0, 0, 1, 1, 0.2], [5, 0, 0, 1, 1, 0.9], [6, 0, 0, 1, 1, 0.9], [2, 0, 0, 1, 1, 0.1]])
    found = VolumeDetections(np.zeros((2, 6)), np.zeros(2), rows, np.array([0, 0, 0, 1]))
    assert best_slice_boxes(found)[:, 0].tolist() == [5, 2]


@given(st.lists(st.integers(0, 9), max_size=30))
def test_ranges_are_expanded_row_by_row(counts):
    row, member = expand_ranges(np.arange(len(counts)) * 10, np.array(counts, dtype=int))
    assert row.tolist() == [i for i, n in enumerate(counts) for _ in range(n)]
    assert member.tolist() == [10 * i + k for i, n in enumerate(counts) for k in range(n)]


@st.composite
def overlaps(draw):
    rows, columns = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    values = draw(st.lists(st.sampled_from([0.0, 0.3, 0.6, 0.7, 0.9]), min_size=36, max_size=36))
    return np.array(values[: rows * columns]).reshape(rows, columns)


@given(overlaps())
def test_matching_is_one_to_one_and_leaves_no_better_pair(overlap):
    rows, columns = match_best_first(overlap, 0.5)
    assert len(set(rows)) == len(rows) and len(set(columns)) == len(columns)
    row_value = np.zeros(overlap.shape[0])
    column_value = np.zeros(overlap.shape[1])
    row_value[rows] = column_value[columns] = overlap[rows, columns]
    for i, j in zip(*np.nonzero(overlap > 0.5), strict=True):
        assert row_value[i] >= overlap[i, j] or column_value[j] >= overlap[i, j]
