"""Mined annotations against the hidden truth, as users measure them."""

import numpy as np
import pytest
from helpers.mined_ledger import OTHER, A, hidden_dataset, rows, write_mined_ledger

from experiments.__main__ import main
from experiments.mined import iobb_of
from lens_d2.data.ledger.table import to_table, write_ledger


@pytest.fixture
def dataset(tmp_path):
    with hidden_dataset(tmp_path) as name:
        yield name


@pytest.fixture
def ledger(tmp_path):
    return write_mined_ledger(tmp_path / "ledger.csv")


def test_measured_by_hand(dataset, ledger, tmp_path, capsys):
    output = tmp_path / "table.md"
    assert main(["mined", str(ledger), "--dataset", dataset, "--output", str(output)]) == 0
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


def test_hard_negatives_that_are_lesions(dataset, tmp_path, capsys):
    mined = [
        *rows(A, f"{A}/negative-1", "LesionHarvester", OTHER, [10], status="hard_negative"),
        *rows(A, f"{A}/negative-2", "LesionHarvester", OTHER - 30, [10], status="hard_negative"),
    ]
    write_ledger(tmp_path / "negatives.parquet", [to_table(mined)])
    assert main(["mined", str(tmp_path / "negatives.parquet"), "--dataset", dataset]) == 0
    (line,) = [
        x for x in capsys.readouterr().out.splitlines() if x.startswith("| LesionHarvester (hard negatives)")
    ]
    assert [c.strip() for c in line.split("|")[2:6]] == ["2", "50.0%", "2", "50.0%"]


def test_what_is_recovered_by_size_contrast_and_kind(dataset, ledger, capsys):
    assert main(["mined", str(ledger), "--dataset", dataset]) == 0
    lines = [[c.strip() for c in x.split("|")[1:-1]] for x in capsys.readouterr().out.splitlines()]
    header = next(x for x in lines if x and x[0] == "missing lesions")
    recovered = {x[0]: dict(zip(header[1:], x[1:], strict=True)) for x in lines if len(x) == len(header)}
    # missing are lesion 2 in A (10 mm, 10 HU, a cyst) and lesion 1 in B (20 mm, -30 HU, a nodule)
    matched = {name: each["IntraPatient"] for name, each in recovered.items() if ": " in name}
    assert matched == {
        "size: below 12 mm": "0 of 1 (0.0%)",
        "size: 16-24 mm": "1 of 1 (100.0%)",
        "contrast: 1 of 3, below 17 HU": "0 of 1 (0.0%)",
        "contrast: 3 of 3, 23 HU or more": "1 of 1 (100.0%)",
        "kind: cyst": "0 of 1 (0.0%)",
        "kind: nodule": "1 of 1 (100.0%)",
    }
    assert recovered["kind: cyst"]["CrossDataset (uncertain)"] == "1 of 1 (100.0%)"


def test_a_lesion_with_slices_that_are_uncertain_is_two(dataset, tmp_path, capsys):
    mined = [
        *rows(A, f"{A}/self-1", "SelfTraining", OTHER, [11]),
        *rows(A, f"{A}/self-1", "SelfTraining", OTHER + 30, [10, 12], status="uncertain"),
    ]
    write_ledger(tmp_path / "mixed.parquet", [to_table(mined)])
    assert main(["mined", str(tmp_path / "mixed.parquet"), "--dataset", dataset]) == 0
    lines = {x.split("|")[1].strip(): x.split("|")[2:5] for x in capsys.readouterr().out.splitlines() if "|" in x}
    assert [c.strip() for c in lines["SelfTraining"]] == ["1", "100.0%", "1"]
    assert [c.strip() for c in lines["SelfTraining (uncertain)"]] == ["2", "0.0%", "1"]


def test_without_the_hidden_truth(dataset, ledger, tmp_path, capsys):
    (tmp_path / "hidden_truth.json").unlink()
    assert main(["mined", str(ledger), "--dataset", dataset]) == 2
    assert "hidden_truth.json: cannot be read: No such file" in capsys.readouterr().err


def test_overlap_is_the_part_of_the_mined_box():
    mined = np.array([[4, 10, 10, 30, 30], [5, 10, 10, 30, 30]], dtype=float)
    assert iobb_of(mined, np.array([0, 0, 0, 100, 100, 9.0])) == 1
    assert iobb_of(mined, np.array([10, 10, 5, 20, 30, 5.0])) == pytest.approx(0.25)
    assert iobb_of(mined, np.array([10, 10, 6, 20, 30, 8.0])) == 0
