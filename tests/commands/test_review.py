"""The command ``review``: what it needs. (The page and its verdicts: tests/export/test_review_page.py.)"""

import argparse
import json

import pytest
from helpers.mined_ledger import OTHER, A, B, hidden_dataset, rows

from lens_d2.commands import main, options, review
from lens_d2.data.ledger.queue import QUEUES
from lens_d2.data.ledger.table import read_ledger, to_table, write_ledger


def test_it_needs_a_dataset_or_verdicts(tmp_path, capsys):
    assert main(["review", str(tmp_path / "ledger.csv")]) == 2
    assert capsys.readouterr().err.startswith("--dataset: not given: it is needed to write a page")


def test_the_page_does_not_replace_the_ledger(tmp_path, capsys):
    """As where --apply was forgotten."""
    with hidden_dataset(tmp_path) as name:
        ledger = tmp_path / "ledger.csv"
        write_ledger(ledger, [to_table(rows(A, f"{A}/self-1", "SelfTraining", OTHER, [3]))])
        before = ledger.read_bytes()
        assert main(["review", str(ledger), "--dataset", name, "--output", str(ledger)]) == 2
    assert "ledger.csv: the page must end in .html" in capsys.readouterr().err and ledger.read_bytes() == before


def test_the_queue_and_its_limit(tmp_path, monkeypatch, capsys):
    """By score the mined lesion is first; the region that training ignores tells more."""
    mined = [
        *rows(A, f"{A}/self-1", "SelfTraining", OTHER, [3], precision=0.95),
        *rows(B, f"{B}/luna-1", "CrossDataset", OTHER, [10], status="uncertain", precision=0.5),
        *rows(B, f"{B}/luna-2", "CrossDataset", OTHER + 15, [10], status="rejected"),
    ]
    mined[0] = mined[0]._replace(score=0.99)
    ledger, shown = tmp_path / "ledger.csv", {}
    write_ledger(ledger, [to_table(mined)])

    def write(path, name, proposals, records, cache, left_out):
        shown[path.stem] = [each.id for each in proposals], left_out
        return 0

    monkeypatch.setattr(review, "write_review_page", write)
    with hidden_dataset(tmp_path) as dataset:
        for queue in QUEUES:
            words = ["--queue", queue, "--limit", "1", "--output", str(tmp_path / f"{queue}.html")]
            assert main(["review", str(ledger), "--dataset", dataset, *words]) == 0
        assert (
            main(["review", str(ledger), "--dataset", dataset, "--all", "--output", str(tmp_path / "all.html")])
            == 0
        )
        assert "1 left out (--limit)" in capsys.readouterr().out
        assert main(["review", str(ledger), "--dataset", dataset, "--strategy", "SelfTrainin"]) == 2
    assert (
        "--strategy: nothing in ledger.csv is of 'SelfTrainin'; there are CrossDataset, "
        in capsys.readouterr().err
    )
    assert shown["score"] == ([f"{A}/self-1"], 1)
    assert shown["informative"] == ([f"{B}/luna-1"], 1)
    assert len(shown["all"][0]) == 3


def test_the_option_names_all_queues():
    parser = argparse.ArgumentParser()
    options.review(parser)
    (queue,) = [action for action in parser._actions if action.dest == "queue"]
    assert list(queue.choices) == list(QUEUES)


@pytest.mark.parametrize("name", ["ledger.csv", "ledger.parquet"])
def test_verdicts_are_in_both_forms_of_a_runs_ledger(tmp_path, name):
    lesion = f"{A}/self-1"
    paths = [tmp_path / "ledger.csv", tmp_path / "ledger.parquet"]
    for path in paths:
        write_ledger(path, [to_table(rows(A, lesion, "SelfTraining", OTHER, [3], precision=0.95))])
    (tmp_path / "verdicts.json").write_text(json.dumps({"verdicts": {lesion: {"verdict": "rejected"}}}))
    assert main(["review", str(tmp_path / name), "--apply", str(tmp_path / "verdicts.json")]) == 0
    assert [read_ledger(path)["status"].tolist() for path in paths] == [["rejected"]] * 2


def test_a_column_of_the_reviewers_own_is_not_lost(tmp_path, capsys, caplog):
    """Written beside it, the ledger lacks the column, and a warning says so; in place it is not written."""
    ledger, other = tmp_path / "ledger.csv", tmp_path / "other.csv"
    write_ledger(ledger, [to_table(rows(A, f"{A}/self-1", "SelfTraining", OTHER, [3], precision=0.95))])
    head, *lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join([f"{head},comment", *(f"{line},mine" for line in lines)]) + "\n")
    before = ledger.read_bytes()
    assert main(["review", str(ledger), "--apply", str(tmp_path / "verdicts.json")]) == 2
    assert "unknown columns: comment; they would be lost" in capsys.readouterr().err
    assert ledger.read_bytes() == before
    assert main(["ledger", "convert", str(ledger), str(other)]) == 0
    assert "comment; they are left out" in caplog.text and "comment" not in other.read_text()
