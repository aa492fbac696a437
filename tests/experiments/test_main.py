"""The runner of experiments: its list, its modules, its ends; and the parts that experiments share."""

import importlib
import json
import subprocess
import sys

import pytest

from experiments import EXPERIMENTS, runs
from experiments.__main__ import main
from lens_d2.io.errors import DataError


def test_the_list_has_every_module_and_loads_none(repo_root, capsys):
    assert main([]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.rpartition("\n\n")[2].splitlines()}
    own = {path.stem for path in (repo_root / "experiments").iterdir() if not path.name.startswith("__")}
    assert set(EXPERIMENTS) == listed == own - {"runs", "templates"}
    code = "import sys; from experiments.__main__ import main; main([]); sys.exit('lens_d2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_has_what_the_runner_calls(name):
    experiment = importlib.import_module(f"experiments.{name}")
    assert f"python -m experiments {name}" in experiment.__doc__
    assert callable(experiment.add_arguments) and callable(experiment.run)


def test_an_unknown_name_is_one_line(capsys):
    assert main(["harvets"]) == 2
    assert capsys.readouterr().err == "harvets: no such experiment; did you mean harvest?\n"


def test_results_by_seed_are_whole_in_json_and_markdown(tmp_path):
    results = {1: {"a": 0.25, "b": None}, 2: {"a": 0.75}}
    table = runs.write_results(tmp_path, results, dataset="d")
    assert (tmp_path / "results.md").read_text() == f"{table}\n"
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "dataset": "d", "seeds": {"1": {"a": 0.25, "b": None}, "2": {"a": 0.75}}, "mean": {"a": 0.5, "b": None},
    }  # fmt: skip
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[0] == ["", "mean", "seed 1", "seed 2"] and rows[2:] == [
        ["a", "0.5000", "0.2500", "0.7500"], ["b", "", "", ""],
    ]  # fmt: skip


def test_a_command_that_fails_is_named():
    with pytest.raises(DataError, match=r"tools/none.py: ended with exit code \d+; its last lines"):
        runs.call("tools/none.py")


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_cohort_without_hidden_truth(tmp_path, text):
    if text:
        (tmp_path / "hidden_truth.json").write_text(text)
    with pytest.raises(DataError, match="hidden_truth.json: (cannot be read|no hidden truth)"):
        runs.read_hidden_truth(tmp_path)
