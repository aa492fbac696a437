"""Reading curves: points asked exactly, ends, single points; areas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import interp1d

from lens_d2.evaluation.curves import (
    FrocEvents,
    average_precision,
    froc_curve,
    froc_curve_by_rates,
    precision_recall,
    read_extrapolating,
    read_highest,
    recall_at_precision,
)


def read(reader, points, at):
    fps, sensitivity = np.array(points, dtype=float).reshape(-1, 2).T
    return reader(fps, sensitivity, np.array(at, dtype=float)).tolist()


STEP = [(0, 0.1), (0.125, 0.1), (0.125, 0.3), (0.125, 0.6), (0.25, 0.6)]


def test_where_points_share_the_count_that_is_asked_for():
    assert read(read_highest, STEP, [0.125]) == [0.6]
    assert read(read_extrapolating, STEP, [0.125]) == [0.1]


def test_between_points_both_are_linear():
    points = [(0, 0.2), (1, 0.4)]
    assert read(read_highest, points, [0.25]) == [0.25] == read(read_extrapolating, points, [0.25])


def test_beyond_the_ends():
    points = [(1, 0.2), (2, 0.4)]
    assert read(read_highest, points, [0.5, 3]) == [0.0, 0.4]
    assert read(read_extrapolating, points, [0.5, 3]) == pytest.approx([0.1, 0.6])


@pytest.mark.parametrize(
    "points, at",
    [
        ([(0.5, 0.2)], [0.125, 0.5, 4]),  # one point
        ([(0, 0.1), (1, 0.1), (1, 0.4)], [2, 16]),  # a vertical end
        ([(0, 0.4), (0, 0.4)], [1]),  # one point twice
    ],
)
def test_undefined_extrapolation_gives_the_last_value(points, at):
    assert read(read_extrapolating, points, at) == [points[-1][1]] * len(at)


def test_undefined_extrapolation_before_a_vertical_beginning_gives_the_first_value():
    points = [(0.25, 0.1), (0.25, 0.4), (1, 0.4)]
    assert read(read_extrapolating, points, [0.125, 0.25, 1]) == [0.1, 0.1, 0.4]


def test_an_empty_curve_is_zero():
    assert read(read_highest, [], [1, 2]) == [0, 0] == read(read_extrapolating, [], [1, 2])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=20), st.integers(1, 9))
def test_readers_are_numpys_and_scipys(steps, volumes):
    fps = np.cumsum([fp for fp, _ in steps]) / volumes
    sensitivity = np.cumsum([hit and not fp for fp, hit in steps]) / len(steps)
    at = np.array([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8])
    with np.errstate(all="ignore"):
        scipys = interp1d(fps, sensitivity, fill_value="extrapolate")(at)
    ends = np.where(at <= fps[0], sensitivity[0], sensitivity[-1])
    scipys = np.where(np.isfinite(scipys), scipys, ends)
    assert read_extrapolating(fps, sensitivity, at) == pytest.approx(scipys)
    inside = (at >= fps[0]) & (at <= fps[-1])
    assert read_highest(fps, sensitivity, at)[inside] == pytest.approx(interp1d(fps, sensitivity)(at[inside]))


def events(hit_rank, fp_rank, num_ranks, volumes=2):
    hit_rank, fp_rank = np.array(hit_rank, dtype=int), np.array(fp_rank, dtype=int)
    zeros = np.zeros(len(fp_rank), dtype=int)
    return FrocEvents(fp_rank, zeros, hit_rank, np.zeros(len(hit_rank), dtype=int), volumes, num_ranks)


def test_curves_of_events():
    some = events(hit_rank=[0, 2, 2, -1], fp_rank=[1, 3], num_ranks=4)
    fps, sensitivity = froc_curve(some)
    assert fps.tolist() == [0, 0.5, 0.5, 1] and sensitivity.tolist() == [0.25, 0.25, 0.75, 0.75]
    fps, sensitivity = froc_curve_by_rates(some)
    assert fps.tolist() == [0, 0, 0.5, 0.5, 1] and sensitivity.tolist() == [0, 0.25, 0.25, 0.75, 0.75]
    part = some.of_lesions(np.array([True, False, False, True]))
    assert froc_curve(part)[1].tolist() == [0.5, 0.5, 0.5, 0.5] and part.num_lesions == 2


def test_rates_without_false_positives_or_hits():
    assert froc_curve_by_rates(events([0, 1], [], 2))[0].tolist() == [0, 0, 0]
    assert froc_curve_by_rates(events([-1, -1], [0, 1], 2))[1].tolist() == [0, 0, 0]


def test_average_precision_and_recall_at_precision():
    """Right, wrong, right, wrong; the last lesion of three is never found."""
    precision, recall = precision_recall(np.array([1, 0, 1, 0]), np.array([0, 1, 0, 1]), 3)
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert average_precision(precision, recall) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert recall_at_precision(precision, recall, 0.6) == pytest.approx(2 / 3)
    assert recall_at_precision(precision, recall, 0.8) == pytest.approx(1 / 3)
    assert recall_at_precision(precision[1:], recall[1:], 0.95) == 0.0
    assert average_precision(np.zeros(0), np.zeros(0)) == 0.0


def test_one_detection_can_add_several_of_both():
    """Two lesions newly hit, then three hit of which two were hit before."""
    precision, recall = precision_recall(np.array([2, 1]), np.array([0, 2]), 4)
    assert precision.tolist() == pytest.approx([1, 3 / 5]) and recall.tolist() == [0.5, 0.75]
