"""The pool of several rounds: of one lesion the most confident proposal."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.harvested import box, harvested, proposals
from helpers.ledger_rows import GIVEN, row, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.mining.harvester.pool import from_table, lesions_of, merge, to_harvested, to_table
from lens_d2.mining.harvester.selection import (
    on_lesions,
)
from lens_d2.structures.detections import VolumeDetections

few = settings(max_examples=40, deadline=None)


def test_of_one_lesion_the_one_with_the_highest_detection_score_is_kept():
    """Eq. 5 goes by the detection's confidence, s_g, whatever the classifier says."""
    weak, strong = harvested(generator=0.6, classifier=0.9), harvested(z=4, generator=0.7, classifier=0.1, round=2)
    elsewhere, other = harvested(x=40), harvested(volume="w")
    kept = merge([weak, strong, elsewhere, other])
    assert kept == [elsewhere, strong, other]
    assert merge([strong, weak, other, elsewhere]) == kept == merge(kept)
    assert merge([weak, strong], confidence=lambda x: x.score) == [weak]


def test_lesions_of_a_ledger_are_those_that_it_alone_has():
    ledger = table_of(
        row(6, f"{GIVEN}/0", annotation=f"{GIVEN}/0"),
        row(7, "by itself", annotation=""),
        row(8, "matched", annotation=f"{GIVEN}/0"),
        row(9, "region", annotation="", status="uncertain"),
    )
    assert sorted(each.lesion for each in lesions_of(ledger)) == ["by itself", "matched"]


def test_a_given_mark_goes_before_what_was_found():
    marked = harvested(annotation="v/7", classifier=0.1, number=1)
    assert merge([harvested(generator=0.9), marked]) == [marked]
    again = harvested(x=60, annotation="v/7", generator=0.6, number=2)
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
        same = [x for x in kept if x.volume == one.volume and x.generator >= one.generator and overlaps(x, one)]
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
