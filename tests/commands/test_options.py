"""Options of every command: told at once, named alike, with an example each."""

import argparse
import inspect
import re
import shlex
import subprocess
import sys
from importlib import import_module

import pytest

from lens_d2.commands import main, options
from lens_d2.commands.options import COMMANDS, get_parser
from lens_d2.evaluation.jobs import BOX_ORDERS, OPTIONS
from lens_d2.evaluation.overlap import OVERLAPS
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.readers import BOX_READERS
from lens_d2.phantom.plan import DIFFICULTIES, SIZES

NAMES = [declare.__name__ for declare in COMMANDS]


def option(command: str, name: str) -> argparse.Action:
    (commands,) = [a for a in get_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    (found,) = [a for a in commands.choices[command]._actions if name in a.option_strings]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_command_runs_and_has_an_example(name):
    assert callable(import_module(f"lens_d2.commands.{name}").run)
    text = inspect.getdoc(getattr(options, name))
    (first, *_) = re.findall(rf"^    lens-d2 {name}.*$", text, re.MULTILINE)
    words = [word for word in first.split("(")[0].split()[1:] if word != "..."]
    assert get_parser().parse_args(words).command == name


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in NAMES)], ids=" ".join)
def test_help_imports_nothing_that_is_slow(words):
    code = "import sys; from lens_d2.commands import main\ntry: main(sys.argv[1:])\nfinally: "
    code += "assert not {'numpy', 'torch', 'detectron2', 'pandas'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "usage: lens-d2" in done.stdout


def test_names_are_the_registries():
    assert set(option("evaluate", "--protocol").choices) == {*OPTIONS} == {name for name, _ in PROTOCOLS}
    assert set(option("evaluate", "--metric").choices) == set(OVERLAPS)
    assert set(option("evaluate", "--format").choices) == {name for name, _ in BOX_READERS}
    assert set(option("evaluate", "--box-order").choices) == set(BOX_ORDERS)
    assert list(option("phantom", "--size").choices) == list(SIZES)
    assert list(option("phantom", "--difficulty").choices) == list(DIFFICULTIES)


@pytest.mark.parametrize(
    "words",
    [
        "predict --input a --output b --score-threshold nan",
        "predict --input a --output b --max-detections -1",
        "predict --input a --output b --spacing 1 1 inf",
        "evaluate --protocol lens3d --ground-truth a --predictions b --output c --seed -1",
        "review a --limit -1",
        "phantom --seed -1",
        "predict --input a --output ''",
        "predict --input '' --output b",
    ],
)
def test_numbers_that_mean_nothing_are_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        get_parser().parse_args(shlex.split(words))
    assert ended.value.code == 2 and "argument --" in capsys.readouterr().err.splitlines()[-1]


def test_overrides_stand_last_with_or_without_their_name():
    words = ["predict", "--input", "a", "--output", "b"]
    for given in (["A.B", "1", "C", "(2, 3)"], ["--opts", "A.B", "1", "C", "(2, 3)"]):
        assert get_parser().parse_args([*words, *given]).opts == ["A.B", "1", "C", "(2, 3)"]
    assert get_parser().parse_args(words).opts == []
    assert get_parser().parse_args(["train", "--resume", "A.B", "1"]).opts == ["A.B", "1"]


def test_a_wrong_command_or_option_ends_with_status_2(capsys):
    for words in ([], ["trian"], ["train", "--num-gpus", "many"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "invalid choice: 'trian'" in capsys.readouterr().err


def test_module_and_scripts_are_the_same_commands(repo_root):
    thin = {path: re.search(r'main\(\["(\w+)"', path.read_text()) for path in repo_root.glob("*/*.py")}
    named = {
        found[1] for path, found in thin.items() if found and path.parent.name in ("tools", "datasets", "demo")
    }
    assert named | {"train", "zoo", "setup"} == set(NAMES)
    done = subprocess.run([sys.executable, "-m", "lens_d2", "--version"], capture_output=True, text=True)
    assert re.fullmatch(r"lens_d2 \d+\.\d+\.\d+\n", done.stdout)
