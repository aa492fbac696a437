"""tools/ledger.py and tools/measure_mining.py, as users run them."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.mining_proposals import record

from lens_d2.data.ledger.table import LedgerRow, read_ledger, to_table, write_ledger

A, B = "000001_01_01_001-020", "000001_02_01_001-020"
LESION = np.array([10.0, 10, 30, 30])
OTHER = np.array([60.0, 60, 70, 70])


@pytest.fixture
def dataset(tmp_path):
    """Two studies of a patient: lesion 1 is annotated in the first, 3 in the second, 2 never."""
    records = [record("000001_01_01", lesions=[(5, LESION)]), record("000001_02_01", lesions=[(15, OTHER)])]
    hidden = {
        A: [hidden_lesion(1, LESION, 4, 7), hidden_lesion(2, OTHER, 10, 12)],
        B: [hidden_lesion(1, LESION, 5, 6), hidden_lesion(3, OTHER, 15, 15)],
    }
    truth = {"volumes": {name: {"lesions": lesions} for name, lesions in hidden.items()}}
    (tmp_path / "hidden_truth.json").write_text(json.dumps(truth))
    DatasetCatalog.register("hidden", lambda: records)
    MetadataCatalog.get("hidden").set(root=str(tmp_path), expert="deeplesion", fully_labelled=False)
    yield "hidden"
    DatasetCatalog.remove("hidden")
    MetadataCatalog.remove("hidden")


def hidden_lesion(instance, box, first, last):
    x1, y1, x2, y2 = box
    boxes = [[z, *box] for z in range(first, last + 1)]
    return {"instance": instance, "boxes": boxes, "box3d": [x1, y1, first, x2, y2, last]}


def rows(volume, lesion, strategy, box, slices, **columns):
    values = {"annotation": "", "status": "annotation", "distance": np.nan, **columns}
    return [
        LedgerRow(
            id=f"{lesion}@{z}", volume=volume, slice=z, x1=box[0], y1=box[1], x2=box[2], y2=box[3], lesion=lesion,
            strategy=strategy, round=1, score=0.9, **values,
        )
        for z in slices
    ]  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    """Three of four slices followed, one of them beside; one match right, one wrong; two regions, one a lesion."""
    path = tmp_path / "ledger.csv"
    mined = [
        *rows(A, f"{A}/0", "CrossSlice", LESION, [4, 6], annotation=f"{A}/0"),
        *rows(A, f"{A}/0", "CrossSlice", LESION + 15, [7], annotation=f"{A}/0"),
        *rows(B, f"{B}/fused-0", "IntraPatient", LESION, [5, 6], annotation=f"{A}/0", distance=0.1),
        *rows(B, f"{B}/fused-1", "IntraPatient", LESION + 40, [5], annotation=f"{A}/0", distance=0.1),
        *rows(A, f"{A}/luna-0", "CrossDataset", OTHER, [10, 11], status="uncertain"),
        *rows(A, f"{A}/luna-1", "CrossDataset", OTHER - 30, [10], status="uncertain"),
        *rows(A, f"{A}/luna-2", "CrossDataset", OTHER, [12], status="rejected"),
    ]
    write_ledger(path, [to_table(mined)])
    return path


def test_measured_by_hand(tool, dataset, ledger, tmp_path, capsys):
    output = tmp_path / "table.md"
    assert tool("measure_mining").main([str(ledger), "--dataset", dataset, "--output", str(output)]) == 0
    text = output.read_text()
    assert capsys.readouterr().out.strip() in text
    lines = {
        cells[1].strip(): [c.strip() for c in cells[2:-1]]
        for cells in map(lambda x: x.split("|"), text.splitlines())
        if len(cells) > 3
    }
    # missing: 2D 3 of lesion 1 in A, 3 of lesion 2, 2 of lesion 1 in B; 3D lesion 2 in A, lesion 1 in B
    assert lines["CrossSlice"] == ["3", "66.7%", "0", "", "", "2 of 8 (25.0%)", "0 of 2 (0.0%)"]
    assert lines["IntraPatient"] == ["3", "66.7%", "2", "50.0%", "100.0%", "2 of 8 (25.0%)", "1 of 2 (50.0%)"]
    assert lines["all annotations"] == ["6", "66.7%", "2", "50.0%", "100.0%", "4 of 8 (50.0%)", "1 of 2 (50.0%)"]
    assert lines["CrossDataset (uncertain)"] == [
        "3", "66.7%", "2", "50.0%", "", "2 of 8 (25.0%)", "1 of 2 (50.0%)",
    ]  # fmt: skip


def test_hard_negatives_that_are_lesions(tool, dataset, tmp_path, capsys):
    mined = [
        *rows(A, f"{A}/negative-1", "LesionHarvester", OTHER, [10], status="hard_negative"),
        *rows(A, f"{A}/negative-2", "LesionHarvester", OTHER - 30, [10], status="hard_negative"),
    ]
    write_ledger(tmp_path / "negatives.parquet", [to_table(mined)])
    assert tool("measure_mining").main([str(tmp_path / "negatives.parquet"), "--dataset", dataset]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "hard negatives" in x]
    assert [c.strip() for c in line.split("|")[2:6]] == ["2", "50.0%", "2", "50.0%"]


def test_without_the_hidden_truth(tool, dataset, ledger, tmp_path, capsys):
    (tmp_path / "hidden_truth.json").unlink()
    assert tool("measure_mining").main([str(ledger), "--dataset", dataset]) == 2
    assert "hidden_truth.json: cannot be read: No such file" in capsys.readouterr().err


def test_overlap_is_the_part_of_the_mined_box(tool):
    iobb_of = tool("measure_mining").iobb_of
    mined = np.array([[4, 10, 10, 30, 30], [5, 10, 10, 30, 30]], dtype=float)
    assert iobb_of(mined, np.array([0, 0, 0, 100, 100, 9.0])) == 1
    assert iobb_of(mined, np.array([10, 10, 5, 20, 30, 5.0])) == pytest.approx(0.25)
    assert iobb_of(mined, np.array([10, 10, 6, 20, 30, 8.0])) == 0


def test_ledger_check_counts_convert(tool, dataset, ledger, tmp_path, capsys):
    main = tool("ledger").main
    assert main(["check", str(ledger), "--dataset", dataset]) == 0
    assert "10 rows, sound" in capsys.readouterr().out
    assert main(["counts", str(ledger), "--dataset", dataset]) == 0
    assert (
        "| + IntraPatient      |         4 |         8 |                0 |                   7 |"
        in capsys.readouterr().out
    )
    assert main(["convert", str(ledger), str(tmp_path / "other.parquet")]) == 0
    assert read_ledger(tmp_path / "other.parquet").equals(read_ledger(ledger))


def test_bad_input_is_one_line_and_status_2(tool, dataset, ledger, capsys):
    table = read_ledger(ledger)
    table.loc[3, "volume"] = "elsewhere"
    table.loc[3, "lesion"] = "one"
    table.to_csv(ledger, index=False)
    assert tool("ledger").main(["check", str(ledger), "--dataset", dataset]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{ledger}: row 4 (line 5): the sub-volume 'elsewhere'") and error.count("\n") == 1
