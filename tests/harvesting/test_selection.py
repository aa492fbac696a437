"""Which proposals are lesions and which hard negatives, and what is kept of several rounds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.mining.harvester.pool import Harvested, from_table, merge, to_harvested, to_table
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


def proposals(*tracklets, classifier=None):
    """Each tracklet: a list of (z, x1, y1, x2, y2, score)."""
    slice_boxes = np.array([box for boxes in tracklets for box in boxes], dtype=float).reshape(-1, 6)
    owner = np.repeat(np.arange(len(tracklets)), [len(boxes) for boxes in tracklets])
    boxes = [[*b[0][1:3], b[0][0], *b[0][3:5], b[-1][0]] for b in tracklets]
    scores = np.array([max(box[5] for box in boxes) for boxes in tracklets])
    classifier = scores if classifier is None else np.array(classifier)
    return VolumeDetections(
        np.array(boxes, dtype=float).reshape(-1, 6), scores, slice_boxes, owner, fpr_scores=classifier
    )


def box(z, x=10.0, score=0.5, side=10.0):
    return (z, x, 10.0, x + side, 20.0, score)


def harvested(z=3, x=10.0, generator=0.5, classifier=0.5, **kw):
    boxes = np.array([box(z - 1, x, 0.0), box(z, x, generator), box(z + 1, x, generator / 2)])
    settings = {"volume": "v", "round": 1, "number": 0, **kw}
    return Harvested(slice_boxes=boxes, generator=generator, classifier=classifier, **settings)


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


def test_of_one_lesion_the_most_confident_is_kept():
    weak, strong = harvested(classifier=0.6), harvested(z=4, classifier=0.9, round=2)
    elsewhere, other = harvested(x=40), harvested(volume="w")
    kept = merge([weak, strong, elsewhere, other])
    assert kept == [elsewhere, strong, other]
    assert merge([strong, weak, other, elsewhere]) == kept == merge(kept)


def test_a_given_mark_goes_before_what_was_found():
    marked = harvested(annotation="v/7", classifier=0.1, number=1)
    assert merge([harvested(classifier=0.9), marked]) == [marked]
    again = harvested(x=60, annotation="v/7", classifier=0.2, number=2)
    assert merge([marked, again]) == [again]


lesion = st.builds(
    harvested,
    z=st.integers(1, 6), x=st.integers(0, 5).map(lambda x: 3.0 * x), generator=st.floats(0.1, 1),
    classifier=st.floats(0.1, 1), volume=st.sampled_from("vw"), round=st.integers(1, 3),
    number=st.integers(0, 10**6),
)  # fmt: skip


@few
@given(st.lists(lesion, max_size=12), st.lists(lesion, max_size=6))
def test_merging_keeps_one_for_each_lesion(first, second):
    everything = [replace(one, number=number) for number, one in enumerate(first + second)]  # ids are unique
    kept = merge(everything)
    assert merge(kept) == kept
    for one in everything:  # each is kept, or is the same lesion as one kept that is no less confident
        same = [x for x in kept if x.volume == one.volume and x.score >= one.score and overlaps(x, one)]
        assert same


def overlaps(one, other):
    found = VolumeDetections(np.zeros((1, 6)), np.zeros(1), other.slice_boxes, np.zeros(3, int))
    return bool(on_lesions(found, [one.slice_boxes])[0])


def rows_of(lesion):
    return lesion.rows(range(10))


def test_rows_are_the_boxes_on_the_slices_that_are_asked_for():
    lesion = harvested(z=3, generator=0.8, classifier=0.5, round=2, number=9)
    assert [row.slice for row in rows_of(lesion)] == [3, 4]  # on slice 2 nothing was detected
    (row,) = lesion.rows({3})
    assert (row.slice, row.status, row.round, row.id) == (3, "annotation", 2, "v/lesion-2-9@3")
    assert row.score == pytest.approx(0.4) and row.x2 == lesion.best_slice[3]
    (negative,) = harvested(z=3, status="hard_negative").rows({3})
    assert (negative.status, negative.lesion) == ("hard_negative", "v/negative-1-0")
    (marked,) = harvested(z=3, annotation="v/7").rows({3})
    assert (marked.lesion, marked.annotation) == ("v/7", "v/7")


def test_the_pool_is_read_back():
    found = proposals([box(3), box(4, score=0.7)], [box(5)], classifier=[0.9, 0.4])
    pool = to_harvested(found, [0, 1], "v", 2, annotations=["v/3", ""])
    assert [(x.score, x.annotation, x.round) for x in pool] == [(pytest.approx(0.63), "v/3", 2), (0.2, "", 2)]
    again = from_table(to_table(pool))
    assert [row[:11] for x in again for row in rows_of(x)] == [row[:11] for x in pool for row in rows_of(x)]
    assert from_table(to_table([])) == []
