"""The runner of experiments: its list, its modules, its ends; and the parts that experiments share."""

import importlib
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
    assert set(EXPERIMENTS) == listed == own - {"runs", "templates", "tables", "gpu"}
    code = "import sys; from experiments.__main__ import main; main([]); sys.exit('lens_d2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_has_what_the_runner_calls(name):
    experiment = importlib.import_module(f"experiments.{name}")
    assert f"python -m experiments {name}" in experiment.__doc__
    assert callable(experiment.add_arguments) and callable(experiment.run)


def test_an_unknown_name_is_one_line(capsys):
    assert main(["reprodcue"]) == 2
    assert capsys.readouterr().err == "reprodcue: no such experiment; did you mean reproduce?\n"


def test_a_command_that_fails_is_named():
    with pytest.raises(DataError, match=r"tools/none.py: ended with exit code \d+; its last lines"):
        runs.call("tools/none.py")


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_cohort_without_hidden_truth(tmp_path, text):
    if text:
        (tmp_path / "hidden_truth.json").write_text(text)
    with pytest.raises(DataError, match="hidden_truth.json: (cannot be read|no hidden truth)"):
        runs.read_hidden_truth(tmp_path)
