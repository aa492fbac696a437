"""Overlaps as the released scripts count them, and all pairs of a volume's rows piece by piece."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_d2.evaluation.overlap import BoxColumns, box_size, chunked_pairs, overlap, overlapping_pairs
from lens_d2.structures.boxes import expand_ranges


@pytest.mark.parametrize("metric", ["IOU", "IOBB", "IOGT", "IOBBGT"])
def test_overlaps_count_pixels_inclusively(metric):
    """A box of 4 x 2 x 3 voxels and one of 2 x 2 x 2 in its corner."""
    detection, lesion = np.array([[10.0, 20, 5, 13, 21, 7]]), np.array([[12.0, 20, 6, 13, 21, 7]])
    size, inside = 24, 8
    expected = {"IOU": inside / size, "IOBB": inside / size, "IOGT": 1.0, "IOBBGT": 1.0}[metric]
    assert box_size(detection) == size and box_size(lesion) == inside
    assert overlap(detection, lesion, metric) == pytest.approx(expected)
    assert overlap(detection, lesion + [5, 0, 0, 5, 0, 0], metric) == 0
    assert overlap(detection, lesion + [1, 0, 0, 1, 0, 0], metric) > 0  # one column of pixels in common


@pytest.mark.parametrize("x", [-255.929, -0.25, 0.1, 1234.567])
def test_a_box_without_a_width_meets_nothing(x):
    """In millimetres x2 is a pixel less than the edge; x - 1 - x + 1 is not always 0."""
    flat, lesion = np.array([[x, 0, 0, x - 1, 9, 9]]), np.array([[x - 20, 0, 0, x + 20, 9, 9]])
    assert overlap(flat, lesion, "IOU")[0] == 0
    pairs = np.zeros(1, int), np.zeros(1, int)
    assert not len(overlapping_pairs(BoxColumns(flat), BoxColumns(lesion), pairs, "IOBB", 0.3)[0])


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12))
def test_pairs_in_chunks_are_all_pairs(counts, size):
    count, start = np.array(counts, dtype=int), np.arange(len(counts)) * 10
    whole = np.array(expand_ranges(start, count))
    parts = [np.array((row + rows.start, member)) for rows, row, member in chunked_pairs(start, count, size)]
    assert np.concatenate(parts, axis=1).tolist() == whole.tolist()
    assert all(part.shape[1] <= size + 9 for part in parts)
