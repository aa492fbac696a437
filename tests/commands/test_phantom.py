"""The command ``phantom``: options that make no sense, and what it counts. (Its cohorts: tests/phantom.)"""

import json

from lens_d2.commands import main

SMALLEST = ["--train", "1", "--val", "1", "--test", "1", "--luna", "1", "--lits", "1", "--nih-ln", "1"]


def test_a_plan_that_makes_no_sense_is_a_line(tmp_path, capsys):
    assert main(["phantom", "--output", str(tmp_path / "cohort"), "--missing-rate", "1"]) == 2
    assert capsys.readouterr().err == "cohort: missing_rate is 1.0: it must be in [0, 1)\n"
    assert not (tmp_path / "cohort").exists()


def test_it_writes_and_counts(tmp_path, capsys):
    words = ["phantom", "--size", "tiny", *SMALLEST, "--workers", "1", "--output", str(tmp_path / "cohort")]
    assert main(words) == 0
    counts = json.loads((tmp_path / "cohort/phantom.json").read_text())["counts"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(counts) + 1 and lines[-1].startswith(f"{tmp_path / 'cohort'}: written in ")
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
