"""Options that cannot be meant are refused in a line, before anything is written."""

import argparse

import pytest

from experiments import reproduce, runs
from experiments.__main__ import main


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--jobs", "0"], "--jobs: 0; at least 1 is needed"),
        (["--workers", "-1"], "--workers: -1; at least 1 is needed"),
        (["--seeds", "1", "-2"], "--seeds: 1 -2; numbers of 0 and more belong here, each once"),
        (["--seeds", "1", "1"], "--seeds: 1 1; numbers of 0 and more belong here, each once"),
        (["--size", "tinny"], "invalid choice: 'tinny'"),
        (["--", "SOLVER.MAX_ITR", "10"], "SOLVER.MAX_ITR"),
        (["--", "SOLVER.MAX_ITER", "ten"], "SOLVER.MAX_ITER"),
    ],
)
def test_options_are_checked_before_the_cohort_is_written(tmp_path, monkeypatch, capsys, options, fault):
    monkeypatch.setattr(runs, "write_cohort", lambda *args: pytest.fail("the cohort is written"))
    words = ["--table", "budget", "--work", str(tmp_path), "--output", str(tmp_path / "results"), *options]
    try:
        status = main(["reproduce", *words])
    except SystemExit as end:
        status = end.code
    assert status == 2 and fault in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_pages_of_the_project_are_not_written_over_by_default():
    parser = argparse.ArgumentParser()
    reproduce.add_arguments(parser)
    assert parser.parse_args(["--table", "gap"]).output == runs.ROOT / "output/results"
