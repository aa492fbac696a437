"""Verdicts of radiologists, and the rows of a ledger that they change."""

import json
import re

import pytest
from helpers.ledger_rows import GIVEN, row, table_of

from lens_d2.data.ledger.table import LedgerRow, to_table, write_ledger
from lens_d2.data.ledger.verdicts import (
    apply_verdicts,
    judged_rows,
    proposals_of,
    read_verdicts,
    refuse_to_lose_verdicts,
)
from lens_d2.io.errors import DataError


def test_proposals_are_lesions_without_a_verdict(rows):
    ledger = table_of(*rows)
    ledger.loc[ledger["lesion"] == rows[0].lesion, "status"] = "accepted"
    assert {each.id for each in proposals_of(ledger)} == {rows[2].lesion, rows[4].lesion}
    (judged,) = [each for each in proposals_of(ledger, judged=True) if each.status == "accepted"]
    assert judged.slice_boxes[:, 0].tolist() == [4, 6] and judged.box3d == (10, 10, 4, 30, 30.5, 6)


@pytest.mark.parametrize("verdict", ["rejected", "accepted"])
def test_a_verdict_on_a_hard_negative_is_kept(rows, records, tmp_path, verdict):
    ledger = table_of(*rows).assign(status="hard_negative")
    name = ledger["lesion"].iloc[2]
    after, _ = apply_verdicts(ledger, {name: {"verdict": verdict}}, "v.json")
    assert set(after["status"][after["lesion"] == name]) == {verdict}
    assert name not in {each.id for each in proposals_of(after)}
    write_ledger(tmp_path / "ledger.parquet", [to_table(after)])
    assert set(judged_rows([tmp_path / "ledger.parquet"], records)["status"]) == {verdict}


def test_mining_anew_loses_no_verdict(rows, records, tmp_path):
    path = tmp_path / "ledger.parquet"
    nothing = judged_rows([], records)
    refuse_to_lose_verdicts(path, records, nothing)
    ledger = table_of(*rows)
    write_ledger(path, [to_table(ledger)])
    refuse_to_lose_verdicts(path, records, nothing)
    after, _ = apply_verdicts(ledger, {ledger["lesion"].iloc[2]: {"verdict": "accepted"}}, "v.json")
    write_ledger(path, [to_table(after)])
    with pytest.raises(DataError, match="it would lose the verdicts on 1 lesions: move it"):
        refuse_to_lose_verdicts(path, records, nothing)
    refuse_to_lose_verdicts(path, records, judged_rows([path], records))
    path.write_bytes(b"PAR1")
    refuse_to_lose_verdicts(path, records, nothing)


@pytest.mark.parametrize(("old", "new"), [("accepted", "Accepted"), (",", ";")])
def test_a_table_that_was_edited_by_hand_loses_no_verdict_for_a_slip(rows, records, tmp_path, old, new):
    path, ledger = tmp_path / "ledger.csv", table_of(*rows)
    after, _ = apply_verdicts(ledger, {ledger["lesion"].iloc[2]: {"verdict": "accepted"}}, "v.json")
    after.to_csv(path, index=False)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match="ledger.csv: .*; mined anew it would lose its verdicts: put it"):
        refuse_to_lose_verdicts(path, records, judged_rows([], records))


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


class TestForTheNextRound:
    """Verdicts of earlier rounds, as another round of mining knows them."""

    def write(self, path, *rows):
        write_ledger(path, [to_table(rows)])
        return path

    def test_new_lesions_get_names_of_their_own(self, records, tmp_path):
        new = f"{GIVEN}/self-3"
        path = self.write(
            tmp_path / "one.parquet",
            row(6, new, status="accepted", round=2),
            row(7, f"{GIVEN}/self-4", status="uncertain"),
            row(8, f"{GIVEN}/0", status="accepted"),  # a slice of a mark
            row(9, f"{GIVEN}/0", status="rejected"),
        )
        found = judged_rows([path], records)
        name = found["lesion"].iloc[0]
        assert re.fullmatch(rf"{new}/judged-2-[0-9a-f]{{8}}", name)
        assert found[["lesion", "slice", "status"]].to_numpy().tolist() == [
            [name, 6, "accepted"], [f"{GIVEN}/0", 8, "accepted"],
        ]  # fmt: skip
        assert found["id"].tolist() == [f"{name}@6", f"{GIVEN}/0@8"]

    def test_lesions_of_one_name_in_two_rounds_of_one_number_are_two(self, records, tmp_path):
        accepted = [row(z, "new", status="accepted", annotation="") for z in (5, 6, 7)]
        rejected = [row(z, "new", status="rejected", annotation="") for z in (7, 8, 9)]
        paths = [self.write(tmp_path / f"{own[0].status}.csv", *own) for own in (accepted, rejected)]
        found = judged_rows(paths, records)
        assert found["status"].tolist() == ["accepted"] * 3 + ["rejected"] * 3
        assert found["lesion"].nunique() == 2 and found["slice"].tolist() == [5, 6, 7, 7, 8, 9]

    def test_a_slice_of_a_mark_that_is_rejected_later_is_no_longer_accepted(self, records, tmp_path):
        paths = [
            self.write(tmp_path / f"{status}.parquet", row(6, f"{GIVEN}/0", status=status))
            for status in ("accepted", "rejected")
        ]
        assert len(judged_rows(paths[:1], records)) == 1 and not len(judged_rows(paths, records))

    def test_the_last_verdict_holds(self, records, tmp_path):
        first = self.write(tmp_path / "one.csv", row(6, "new", status="accepted", annotation=""))
        again = judged_rows([first], records).iloc[0].to_dict() | {"status": "rejected"}
        other = row(7, "new", status="unsure", annotation="", round=2)  # the next round gives the name again
        second = self.write(tmp_path / "two.csv", LedgerRow(**again), other)
        found = judged_rows([first, second], records)
        assert [name.rpartition("-")[0] for name in found["lesion"]] == ["new/judged-1", "new/judged-2"]
        assert found["status"].tolist() == ["rejected", "unsure"]

    def test_an_unsound_ledger_is_named(self, records, tmp_path):
        assert len(judged_rows([], records)) == 0
        path = self.write(tmp_path / "one.csv", row(6, "new", "elsewhere", status="accepted"))
        with pytest.raises(
            DataError, match="one.csv: row 1 .line 2.: the sub-volume 'elsewhere' is not in the dataset"
        ):
            judged_rows([path], records)
