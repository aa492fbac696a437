"""The ledger merged into records: rows continue lesions or are new ones."""

from itertools import permutations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.ledger_rows import BOX, GIVEN, OTHER, row, table_of

from lens_d2.data.ledger.merge import apply_ledger, ledger_records, register_ledger
from lens_d2.data.ledger.table import (
    read_ledger,
    to_table,
    write_ledger,
)
from lens_d2.structures.records import check_record


class TestMerging:
    def test_rows_continue_lesions_or_are_new_ones(self, records, rows):
        merged = apply_ledger(records, table_of(*rows))
        for one in merged:
            check_record(one)
        first, second, third = merged
        assert [box[0] for box in first["lesions"][0]["boxes"]] == [4, 5, 6]
        assert first["lesions"][0]["status"] == "annotation"
        assert first["lesions"][1] == records[0]["lesions"][1]
        assert first["lesions"][2]["status"] == "uncertain"
        assert second["lesions"][1] == {
            **second["lesions"][1], "id": f"{OTHER}/fused-3", "status": "mined", "boxes": [[7, *BOX], [8, *BOX]],
        }  # fmt: skip
        assert third is records[2]
        assert len(records[0]["lesions"][0]["boxes"]) == 1  # the given ones are as they were

    @pytest.mark.parametrize(
        "status, becomes",
        [
            ("annotation", "mined"), ("accepted", "accepted"), ("uncertain", "uncertain"), ("unsure", "unsure"),
            ("hard_negative", "hard_negative"), ("rejected", "hard_negative"),
        ],
    )  # fmt: skip
    def test_status(self, records, status, becomes):
        (first, *_) = apply_ledger(records, table_of(row(9, "new", status=status)))
        assert [x["status"] for x in first["lesions"]] == ["annotation", "annotation", becomes]

    def test_rejected_slices_of_a_given_lesion_are_left_out(self, records):
        ledger = table_of(row(6, status="rejected"), row(7, "new", status="rejected"))
        first, *_ = apply_ledger(records, ledger)
        assert first["lesions"][0] == records[0]["lesions"][0]
        assert [(x["id"], x["status"]) for x in first["lesions"][2:]] == [("new", "hard_negative")]
        assert [x["id"] for x in ledger_records(records, ledger)[0]["lesions"]] == ["new"]

    def test_a_mined_lesion_weighs_its_precision(self, records):
        rows = [
            row(6, "soft", precision=0.75),
            row(7, "soft", precision=0.85),
            row(8, "sure"),
            row(4, precision=0.5),
        ]
        judged = row(9, "judged", status="accepted", precision=0.25)
        region = row(9, "region", status="uncertain", precision=0.25)
        first, *_ = apply_ledger(records, table_of(*rows, judged, region))
        weights = {x["id"].removeprefix(GIVEN): x.get("weight") for x in first["lesions"]}
        assert weights.pop("soft") == pytest.approx(0.8)
        assert weights == dict.fromkeys(["/0", "/1", "sure", "judged", "region"])

    def test_a_lesion_that_a_radiologist_has_accepted_stays_sure(self, records):
        rows = [row(4, "new", precision=0.6), row(5, "new", status="accepted")]
        (*_, lesion), *_ = (record["lesions"] for record in apply_ledger(records, table_of(*rows)))
        assert lesion["status"] == "accepted" and len(lesion["boxes"]) == 2 and "weight" not in lesion

    def test_ignored_as_gt(self, records, rows):
        first, *_ = apply_ledger(records, table_of(*rows), uncertain_as_lesion=True)
        assert first["lesions"][2]["status"] == "mined"
        unsure = table_of(row(9, "new", status="unsure"))
        assert apply_ledger(records, unsure, uncertain_as_lesion=True)[0]["lesions"][2]["status"] == "unsure"

    def test_a_doubtful_slice_of_a_given_lesion_stays_apart(self, records):
        first, *_ = apply_ledger(records, table_of(row(4), row(6, status="unsure")))
        assert [box[0] for box in first["lesions"][0]["boxes"]] == [4, 5]
        assert (first["lesions"][2]["status"], first["lesions"][2]["boxes"][0][0]) == ("unsure", 6)

    @pytest.mark.parametrize(
        "lesion, expected", [("new", ("accepted", [6, 7])), (f"{GIVEN}/0", ("annotation", [5, 6, 7]))]
    )
    def test_the_order_of_the_rows_does_not_matter(self, records, lesion, expected):
        statuses = {4: "unsure", 6: "annotation", 7: "accepted", 8: "uncertain"}
        for order in permutations(statuses):
            table = table_of(*(row(z, lesion, status=statuses[z]) for z in order))
            first, *_ = apply_ledger(records, table)
            found = {x["id"]: (x["status"], [box[0] for box in x["boxes"]]) for x in first["lesions"]}
            assert found == {
                f"{GIVEN}/0": ("annotation", [5]),
                f"{GIVEN}/1": ("annotation", [5]),
                lesion: expected,
                f"{lesion}/unsure": ("unsure", [4]),
                f"{lesion}/uncertain": ("uncertain", [8]),
            }

    def test_as_a_dataset_of_its_own(self, tmp_path, records, rows):
        path = tmp_path / "ledger.parquet"
        write_ledger(path, [to_table(rows)])
        DatasetCatalog.register("partly", lambda: records)
        MetadataCatalog.get("partly").set(expert="deeplesion", fully_labelled=False)
        try:
            register_ledger("mined", path, "partly")
            found = DatasetCatalog.get("mined")
            assert [r["volume"] for r in found] == [GIVEN, OTHER]
            assert [len(r["lesions"]) for r in found] == [2, 1]
            assert MetadataCatalog.get("mined").expert == "deeplesion"
            register_ledger("mined", path, "partly", given=True)
            assert [len(r["lesions"]) for r in DatasetCatalog.get("mined")] == [3, 2, 1]
            assert found == ledger_records(records, read_ledger(path))
        finally:
            for name in ("partly", "mined"):
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)
