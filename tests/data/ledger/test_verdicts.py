"""Verdicts of radiologists, and the rows of a ledger that they change."""

import json

import pytest
from helpers.ledger_rows import table_of

from lens_d2.data.ledger.verdicts import apply_verdicts, proposals_of, read_verdicts
from lens_d2.io.errors import DataError


def test_proposals_are_lesions_without_a_verdict(rows):
    ledger = table_of(*rows)
    ledger.loc[ledger["lesion"] == rows[0].lesion, "status"] = "accepted"
    assert {each.id for each in proposals_of(ledger)} == {rows[2].lesion, rows[4].lesion}
    (judged,) = [each for each in proposals_of(ledger, judged=True) if each.status == "accepted"]
    assert judged.slice_boxes[:, 0].tolist() == [4, 6] and judged.box3d == (10, 10, 4, 30, 30.5, 6)


@pytest.mark.parametrize("verdict, status", [("rejected", "hard_negative"), ("accepted", "accepted")])
def test_a_rejected_hard_negative_stays_one(rows, verdict, status):
    ledger = table_of(*rows).assign(status="hard_negative")
    name = ledger["lesion"].iloc[0]
    after, _ = apply_verdicts(ledger, {name: {"verdict": verdict}}, "v.json")
    assert set(after["status"][after["lesion"] == name]) == {status}


def test_a_verdict_on_other_boxes_is_refused(rows):
    ledger = table_of(*rows)
    (proposal, *_) = proposals_of(ledger)
    verdicts = {proposal.id: {"verdict": "accepted", "boxes": proposal.checksum}}
    assert apply_verdicts(ledger, verdicts, "v.json")[1]["accepted"] == 1
    moved = ledger.assign(x1=ledger["x1"] - 1)
    with pytest.raises(DataError, match="v.json: the ledger has other boxes for"):
        apply_verdicts(moved, verdicts, "v.json")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([1], 'it has no "verdicts"'),
        ({"verdicts": {"a": {"verdict": "yes"}}}, "the verdict on 'a' is 'yes'"),
        ({"verdicts": {"a": "accepted"}}, "the verdict on 'a' is None"),
    ],
)
def test_files_that_hold_no_verdicts(tmp_path, content, fault):
    (tmp_path / "verdicts.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=fault):
        read_verdicts(tmp_path / "verdicts.json")
