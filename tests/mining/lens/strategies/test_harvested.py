"""Lesions of a harvest's ledger among LENS's own."""

import numpy as np
import pytest
from helpers.ledger_rows import BOX, GIVEN, row, table_of
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.config import load_config
from lens_d2.data.ledger.table import to_table, write_ledger
from lens_d2.io.errors import DataError
from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import Harvested

ROWS = [
    row(4, annotation=f"{GIVEN}/0"),  # more of a mark
    row(6, f"{GIVEN}/lesion-1-2", annotation="", precision=0.8, disagreement=0.25),
    row(7, f"{GIVEN}/lesion-1-2", annotation="", precision=0.8, score=np.nan),
    row(9, f"{GIVEN}/negative-1-3", annotation="", status="hard_negative"),
    row(6, "elsewhere/lesion-1-4", "elsewhere", annotation=""),
]


def mined(strategy):
    return mine_patient(patient((record(lesions=[(5, (10, 10, 30, 30.5))]), proposals())), {"H": strategy}, 0.5)


def test_new_lesions_with_their_precision():
    rows = mined(Harvested(rows=table_of(*ROWS)))
    assert [(row.lesion, row.slice, row.score) for row in rows] == [
        (f"{GIVEN}/lesion-1-2", 6, 0.5), (f"{GIVEN}/lesion-1-2", 7, 1.0),
    ]  # fmt: skip
    assert {(row.precision, row.disagreement, row.status) for row in rows} == {(0.8, 0.25, "annotation")}


def test_hard_negatives_if_wanted(tmp_path):
    path = tmp_path / "ledger.parquet"
    write_ledger(path, [to_table(ROWS)])
    opts = ["MINING.HARVESTED.LEDGER", str(path), "MINING.HARVESTED.STATUSES", ("annotation", "hard_negative")]
    rows = mined(Harvested(load_config("", opts)))
    assert [(row.slice, row.status) for row in rows][-1] == (9, "hard_negative") and len(rows) == 3


def test_verdicts_hold(tmp_path):
    """Accepted but for a rejected slice: sure. Rejected: a hard negative, whatever the experts say."""
    strategy = Harvested(
        rows=table_of(
            row(6, f"{GIVEN}/lesion-1-2", annotation="", precision=0.8, status="accepted"),
            row(7, f"{GIVEN}/lesion-1-2", annotation="", precision=0.8, status="rejected"),
            row(9, f"{GIVEN}/lesion-1-5", annotation="", precision=0.9, status="rejected"),
        ),
        statuses=("annotation", "hard_negative"),
    )
    sure = proposals(lits=tracklets((9, BOX, [0.9])))
    rows = mine_patient(patient((record(), sure)), {"H": strategy}, 0.5)
    assert [(x.slice, x.status, x.precision) for x in rows] == [(6, "annotation", 1.0), (9, "hard_negative", 0.0)]


def test_a_rejection_is_taken_whatever_statuses_are_wanted():
    rejected = row(9, f"{GIVEN}/lesion-1-5", annotation="", precision=0.9, status="rejected")
    assert [(x.slice, x.status) for x in mined(Harvested(rows=table_of(rejected)))] == [(9, "hard_negative")]


@pytest.mark.parametrize(("score", "shift", "taken"), [(0.6, 0, False), (0.4, 0, True), (0.6, 15, True)])
def test_a_hard_negative_is_one_if_all_experts_reject_it(score, shift, taken):
    sure = proposals(lits=tracklets((9, np.add(BOX, shift), [score])))
    strategy = Harvested(rows=table_of(*ROWS), statuses=("hard_negative",), rejected_below=0.5)
    rows = mine_patient(patient((record(), sure)), {"H": strategy}, 0.5)
    assert [row.status for row in rows] == ["hard_negative"] * taken


def test_it_needs_a_ledger():
    with pytest.raises(DataError, match="MINING.HARVESTED.LEDGER: empty"):
        Harvested(load_config())
