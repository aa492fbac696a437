"""The hidden truth in the radiologist's place."""

import pytest
from helpers.mined_ledger import LESION, OTHER, A, B, hidden_dataset, rows

from experiments.__main__ import main
from lens_d2.data.ledger.table import read_ledger, to_table, write_ledger


@pytest.fixture
def dataset(tmp_path):
    with hidden_dataset(tmp_path) as name:
        yield name


@pytest.fixture
def ledger(tmp_path):
    """A missing lesion, one half hit, and nothing; and a mined lesion that is right."""
    mined = [
        *rows(A, f"{A}/luna-0", "CrossDataset", OTHER, [10, 11], status="uncertain"),
        *rows(B, f"{B}/luna-0", "CrossDataset", LESION + 12, [5], status="uncertain"),
        *rows(A, f"{A}/luna-1", "CrossDataset", OTHER - 30, [10], status="uncertain"),
        *rows(B, f"{B}/self-0", "SelfTraining", LESION, [6]),
    ]
    path = tmp_path / "ledger.parquet"
    write_ledger(path, [to_table(mined)])
    return path


def test_ledgers_for_each_order_and_number(dataset, ledger, tmp_path, capsys):
    output = tmp_path / "out"
    options = ["--dataset", dataset, "--counts", "1", "4", "--output", str(output)]
    assert main(["verdicts", str(ledger), *options]) == 0
    assert {path.name for path in output.iterdir()} == {
        "score_1.parquet", "score_4.parquet", "informative_1.parquet", "informative_4.parquet",
        "results.md", "results.json",
    }  # fmt: skip
    judged = read_ledger(output / "informative_4.parquet").groupby("lesion")["status"].first()
    assert judged.to_dict() == {
        f"{A}/luna-0": "accepted", f"{B}/luna-0": "unsure", f"{A}/luna-1": "rejected", f"{B}/self-0": "accepted",
    }  # fmt: skip
    judged = read_ledger(output / "score_1.parquet")
    assert judged["status"].isin(["accepted", "rejected", "unsure"]).groupby(judged["lesion"]).any().sum() == 1
    lines = [[c.strip() for c in x.split("|")[1:-1]] for x in capsys.readouterr().out.splitlines()]
    known = {(x[0], x[1]): x[5] for x in lines if len(x) > 5}
    assert known["", "0"] == "1 of 2"  # of lesion 2 in A, and lesion 1 in B
    assert known["score", "4"] == known["informative", "4"] == "2 of 2"
