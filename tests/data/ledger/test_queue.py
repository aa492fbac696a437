"""The order in which proposals are judged."""

import numpy as np
import pytest
from helpers.ledger_rows import GIVEN, row, table_of
from helpers.mining_proposals import record

from lens_d2.data.ledger.queue import QUEUES
from lens_d2.data.ledger.verdicts import proposals_of

SMALL, LARGE = {"x2": 20.0, "y2": 20.0}, {"x2": 60.0, "y2": 60.0}
SIZES = (16.0,)


def order(name, *rows, marks=()):
    records = [record("000001_01_01", lesions=marks)]
    proposals = proposals_of(table_of(*rows), judged=True)
    return [each.id for each in QUEUES[name](proposals, records, SIZES)]


def region(name, precision=np.nan, status="uncertain", **columns):
    return row(4, name, GIVEN, annotation="", status=status, precision=precision, **{**SMALL, **columns})


def test_by_score():
    rows = [region("none", score=np.nan), region("low", score=0.2), region("high", score=0.9)]
    assert order("score", *rows) == ["high", "low", "none"]


def test_what_changes_most_comes_first():
    """A likely region that is ignored, before a doubtful mined lesion, before a sure one and a sure nothing."""
    rows = [
        region("sure", 0.95, "annotation"),
        region("nothing", 0.02),
        region("doubtful", 0.6, "annotation"),
        region("likely", 0.7),
    ]
    assert order("informative", *rows) == ["likely", "doubtful", "sure", "nothing"]


def test_where_opinions_disagree():
    rows = [
        region("agreed", 0.5, disagreement=0.0),
        region("disputed", 0.5, disagreement=0.4),
        region("alone", 0.5),
    ]
    assert order("informative", *rows)[0] == "disputed"


def test_what_marks_lack_comes_first():
    """Large lesions are marked; a small region goes before likelier large ones, until small ones are known."""
    marks = [(z, (10, 10, 60, 60)) for z in range(8)]
    rows = [
        *(region(f"large-{i}", 0.7, **LARGE) for i in range(3)),
        *(region(f"small-{i}", 0.6) for i in range(3)),
    ]
    found = order("informative", *rows, marks=marks)
    assert found[:2] == ["small-2", "small-1"] and set(found[2:4]) == {"small-0", "large-2"}
    assert order("informative", *rows)[0] == "large-2"  # without the marks


def test_experts_are_strata_of_marks_too():
    """A mark that cross-slice propagation has followed has the expert that agrees with its tracklet."""
    rows = [
        *(region(f"{GIVEN}/{i}", expert="luna")._replace(annotation=f"{GIVEN}/{i}") for i in range(4)),
        region("as the marks", 0.6, expert="luna"),
        region("as none", 0.5, expert="lits"),
    ]
    marks = [(4, (10, 10, 20, 20))] * 4
    found = order("informative", *[each._replace(slice=5) for each in rows], marks=marks)
    assert found[:2] == ["as none", "as the marks"] and len(found) == 6  # more slices of marks come last


@pytest.mark.parametrize("status", ["accepted", "rejected", "unsure"])
def test_the_judged_come_last(status):
    assert order("informative", region("judged", 0.5, status), region("open", 0.01))[0] == "open"


def test_without_anything_known_of_a_proposal():
    assert set(order("informative", region("a", score=np.nan), region("b", score=0.7))) == {"a", "b"}
    assert order("informative") == []
