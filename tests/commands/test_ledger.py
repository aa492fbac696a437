"""The command ``ledger``, as users run it."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.mined_ledger import hidden_dataset, write_mined_ledger

from lens_d2 import commands
from lens_d2.data.ledger.table import read_ledger


@pytest.fixture
def dataset(tmp_path):
    with hidden_dataset(tmp_path) as name:
        yield name


@pytest.fixture
def ledger(tmp_path):
    return write_mined_ledger(tmp_path / "ledger.csv")


@pytest.fixture(scope="module")
def main():
    return lambda words: commands.main(["ledger", *words])


def test_ledger_check_counts_convert(main, dataset, ledger, tmp_path, capsys):
    assert main(["check", str(ledger), "--dataset", dataset]) == 0
    assert "10 rows, sound" in capsys.readouterr().out
    assert main(["counts", str(ledger), "--dataset", dataset]) == 0
    assert (
        "| + IntraPatient      |         4 |         8 |                0 |                   7 |"
        in capsys.readouterr().out
    )
    assert main(["convert", str(ledger), str(tmp_path / "other.parquet")]) == 0
    assert read_ledger(tmp_path / "other.parquet").equals(read_ledger(ledger))


def test_a_ledger_of_a_dataset_that_a_config_registers(main, dataset, ledger, tmp_path, capsys):
    (tmp_path / "reader.py").write_text(
        f"from lens_d2.data.datasets.catalog import register_derived\n"
        f"from detectron2.data import DatasetCatalog\n"
        f"register_derived('own', {dataset!r}, lambda: DatasetCatalog.get({dataset!r}))\n"
    )
    config = tmp_path / "own.yaml"
    config.write_text(f"DATASETS: {{READERS: [{tmp_path / 'reader.py'}]}}\n")
    assert main(["check", str(ledger), "--dataset", "own", "--config-file", str(config)]) == 0
    assert "10 rows, sound" in capsys.readouterr().out
    DatasetCatalog.remove("own"), MetadataCatalog.remove("own")


def test_a_ledger_has_one_of_two_endings(main, ledger, tmp_path, capsys):
    assert main(["convert", str(ledger), str(tmp_path / "other.txt")]) == 2
    assert capsys.readouterr().err.endswith("other.txt: a ledger ends in .parquet or .csv, not in '.txt'\n")


def test_bad_input_is_one_line_and_status_2(main, dataset, ledger, capsys):
    table = read_ledger(ledger)
    table.loc[3, "volume"] = "elsewhere"
    table.loc[3, "lesion"] = "one"
    table.to_csv(ledger, index=False)
    assert main(["check", str(ledger), "--dataset", dataset]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{ledger}: row 4 (line 5): the sub-volume 'elsewhere'") and error.count("\n") == 1
