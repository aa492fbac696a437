"""Label sets measured on V_H-test: recall at precision."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.harvest_cohort import PARTIAL, TEST, VERIFIED, register

from lens_d2.data.ledger.table import LedgerRow, to_table
from lens_d2.mining.harvester.measures import HarvestMeasure, format_generators, format_rows, given_marks
from lens_d2.mining.harvester.pool import to_harvested
from lens_d2.structures.detections import VolumeDetections


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return register(tmp_path_factory.mktemp("sets"))


def found_in(record, marks, scores):
    """A proposal on each of (k, 5) marks."""
    rows = np.column_stack([marks, scores])
    boxes = marks[:, [1, 2, 0, 3, 4, 0]]
    return VolumeDetections(boxes, np.array(scores), rows, np.arange(len(rows)), fpr_scores=np.array(scores))


def boxes_of(record):
    return np.array([box for x in record["lesions"] for box in x["boxes"]], dtype=float)


def test_recall_at_precision_beside_that_of_the_marks(sets):
    """Two of four lesions are marked; proposals on all four and on nothing: the marked ones add nothing."""
    measure = HarvestMeasure(TEST, sets[TEST], sets[PARTIAL])
    assert measure.given() == {"round": 0, "labels": "R_H", "R@100P": 0.5}
    nothing = np.array([[1, 0, 0, 5, 5]])
    found = {
        r["volume"]: found_in(r, np.concatenate([boxes_of(r), nothing]), [0.9, s, 0.6])
        for r, s in zip(sets[TEST], (0.8, 0.5), strict=True)
    }
    rows, curves = measure.of_round(1, found, [])
    assert [row["labels"] for row in rows] == ["P_H,1", "P_H,1^+"]
    for row in rows:  # three right, then two wrong, then the fourth: a precision of 4 in 6
        assert row["R@80P"] == row["R@95P"] == 0.75
    recall, precision = curves["s_g"]
    assert (recall[-1], precision[-1]) == (1.0, pytest.approx(4 / 6))
    table = format_rows([measure.given(), *rows]).splitlines()
    assert "50.0@100P" in table[2] and table[3].count("75.0") == 5


def test_what_is_proposed_twice_counts_once_by_every_score(sets):
    """Where the classifier is sure of everything, harvested labels are those of the generator."""
    measure = HarvestMeasure(TEST, sets[TEST], sets[PARTIAL])
    found = {}
    for record in sets[TEST]:
        boxes = np.repeat(boxes_of(record), 2, axis=0)
        proposals = found_in(record, boxes, np.linspace(0.9, 0.5, len(boxes)))
        found[record["volume"]] = replace(proposals, fpr_scores=np.ones(len(boxes)))
    (generator, harvested), curves = measure.of_round(1, found, [])
    assert {**generator, "labels": ""} == {**harvested, "labels": ""} and generator["R@95P"] == 1.0
    assert curves["s_g"] == curves["s"] == curves["harvested"]


def test_what_a_radiologist_has_accepted_is_measured_as_sure_and_what_is_rejected_not_at_all(sets):
    """On each of two sub-volumes the lesion that is not marked was scored low, and nothing else high."""
    measure = HarvestMeasure(TEST, sets[TEST], sets[PARTIAL])
    nothing = np.array([[1, 0, 0, 5, 5]])
    found, before = {}, []
    for record in sets[TEST]:
        found[record["volume"]] = found_in(record, np.concatenate([boxes_of(record), nothing]), [0.9, 0.1, 0.8])
        for row, status in ((1, "accepted"), (2, "rejected")):
            before += to_harvested(found[record["volume"]], [row], record["volume"], 1, status=status)
    (generator, unjudged), _ = measure.of_round(2, found, [])
    (same, judged), _ = measure.of_round(2, found, before)
    assert generator == same and unjudged["R@95P"] == 0.5 and judged["R@95P"] == 1.0


def test_another_methods_ledger_is_measured_as_the_harvest_is(sets):
    """It follows a mark to another slice, and finds the lesion that is not marked in one of two sub-volumes."""
    measure = HarvestMeasure(TEST, sets[TEST], sets[PARTIAL])
    record = sets[TEST][0]
    marked, missing = record["lesions"]
    name = record["volume"]

    def row(lesion, z, box, score, annotation="", status="annotation", volume=name):
        return LedgerRow(
            f"{lesion}@{z}", volume, z, *box, lesion, "CrossSlice", 1, score, np.nan, annotation, status
        )

    (z, *box), (_, *other) = missing["boxes"][0], marked["boxes"][0]
    rows = [
        row(marked["id"], z, other, 0.9, marked["id"]),
        row("found", z + 1, box, 0.7),
        row("found", z, box, 0.8),
        row("wrong", 0, (0.0, 0.0, 5.0, 5.0), 0.6),
        row("uncertain", 1, (0.0, 0.0, 5.0, 5.0), 0.95, status="uncertain"),
        row("elsewhere", 0, (0.0, 0.0, 5.0, 5.0), 0.95, volume=sets[VERIFIED][0]["volume"]),
    ]
    measured, (recall, precision) = measure.of_ledger("MGTM-SLLP", to_table(rows).to_pandas())
    assert (measured["round"], measured["labels"], measured["R@95P"], measured["mean"]) == (
        0,
        "MGTM-SLLP",
        0.75,
        0.75,
    )
    assert (recall[-1], precision[-1]) == (0.75, 0.75)  # two marks, one found, one wrong
    nothing = measure.of_ledger("none", to_table(rows[:1]).to_pandas())[0]
    assert nothing["R@95P"] == 0.5  # the marks themselves


def test_the_generator_is_measured_as_a_detector(sets):
    """By s_g, without the marks: all four lesions, and one proposal on nothing in each of two sub-volumes."""
    measure = HarvestMeasure(TEST, sets[TEST], sets[PARTIAL])
    nothing = np.array([[1, 0, 0, 5, 5]])
    found = {
        r["volume"]: found_in(r, np.concatenate([boxes_of(r), nothing]), [0.9, 0.8, s])
        for r, s in zip(sets[TEST], (0.85, 0.1), strict=True)
    }
    row = measure.of_generator(3, found)
    assert list(row) == ["round", "0.125", "0.25", "0.5", "1", "2", "4", "8", "16", "AP"] and row["round"] == 3
    assert row["0.125"] == 0.5 and row["1"] == row["8"] == 1 and 0.5 < row["AP"] < 1
    assert format_generators([row]).splitlines()[2].split()[1:4:2] == ["3", "50.0"]
    empty = {name: VolumeDetections() for name in found}
    assert measure.of_generator(1, empty)["8"] == 0


def test_marks_of_the_same_series_are_found_on_their_slices(sets):
    record = sets[TEST][0]
    later = {**record, "first_slice": record["first_slice"] + 1, "num_slices": 4}
    (mark,) = given_marks(record, sets[PARTIAL])
    moved = given_marks(later, sets[PARTIAL])
    assert moved.tolist() == ([[mark[0] - 1, *mark[1:]]] if 0 <= mark[0] - 1 < 4 else [])
    assert not len(given_marks(sets[VERIFIED][0], sets[PARTIAL]))
