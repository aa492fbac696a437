"""Which proposals are lesions and which hard negatives."""

import numpy as np
from helpers.harvested import box, proposals
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.mining.harvester.selection import (
    NONE,
    marks_hit,
    on_lesions,
    select_hard_negatives,
    smallest_threshold,
)
from lens_d2.structures.detections import VolumeDetections
from lens_d2.structures.records import make_lesion

few = settings(max_examples=40, deadline=None)


def test_a_mark_is_hit_on_its_slice_with_half_an_iou():
    """Boxes 10 wide, a mark from 10 to 20: moved by a third of the side they have an IoU of 0.5."""
    record = {"lesions": [make_lesion("v/0", [[4, 10, 10, 20, 20]]), make_lesion("v/1", [[9, 10, 10, 20, 20]])]}
    found = proposals(
        [box(3), box(4, 13.3), box(5)], [box(3), box(5)], [box(4, 13.4)], [box(8), box(9)], [box(4, 11)]
    )
    hits, ids = marks_hit(found, record)
    assert [ids[h] if h != NONE else None for h in hits] == ["v/0", None, None, "v/1", "v/0"]
    record["lesions"].append(make_lesion("v/2", [[4, 13, 10, 23, 20]], status="hard_negative"))
    assert marks_hit(found, record)[0].tolist() == hits.tolist()
    assert marks_hit(found, {"lesions": []})[0].tolist() == [NONE] * 5


@few
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=60), st.floats(0.3, 0.99))
def test_the_threshold_is_the_smallest_that_holds_the_precision(pairs, precision):
    scores = np.array([s / 20 for s, _ in pairs])
    is_lesion = np.array([t for _, t in pairs], dtype=bool)
    threshold = smallest_threshold(scores, is_lesion, precision)
    holds = [t for t in set(scores) if is_lesion[scores >= t].sum() > precision * (scores >= t).sum()]
    assert threshold == (min(holds) if holds else np.inf)


def test_the_precision_has_to_be_above_the_wanted_one():
    """19 lesions in 20 are 95% and not above; 39 in 40 are."""
    scores = np.linspace(1, 0.5, 20)
    is_lesion = np.arange(20) != 19
    assert smallest_threshold(scores, is_lesion, 0.95) == scores[18]
    assert smallest_threshold(np.r_[scores, np.full(20, 0.4)], np.r_[is_lesion, np.ones(20, bool)], 0.95) == 0.4
    assert smallest_threshold(np.zeros(0), np.zeros(0, bool)) == np.inf


@few
@given(st.lists(st.floats(0, 1), max_size=30), st.integers(0, 2**20))
def test_the_hardest_are_five_above_a_half(scores, seed):
    scores = np.array(scores)
    eligible = np.random.default_rng(seed).random(len(scores)) < 0.6
    rows = select_hard_negatives(scores, eligible)
    assert len(rows) == min(5, int((eligible & (scores >= 0.5)).sum()))
    rest = np.setdiff1d(np.flatnonzero(eligible & (scores >= 0.5)), rows)
    assert eligible[rows].all() and (scores[rows] >= 0.5).all()
    assert not len(rest) or scores[rest].max() <= scores[rows].min()


def test_on_lesions_compares_the_slices_that_both_have():
    found = proposals([box(3), box(4)], [box(5)], [box(4, 14)])
    lesion = np.array([[4, 10, 10, 20, 20]])
    assert on_lesions(found, [lesion]).tolist() == [True, False, False]
    assert on_lesions(found, []).tolist() == [False] * 3
    assert on_lesions(VolumeDetections(), [lesion]).tolist() == []
