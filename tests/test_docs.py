"""What the documentation points to exists, and its commands can be given as they stand there."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from helpers.advertised import DOCUMENTS, ROOT, RUN, commands_in, spelled_out
from torch.distributed.run import get_args_parser as torchrun_parser

from benchmarks import MEASUREMENTS
from experiments import EXPERIMENTS
from lens_d2 import add_lens_config

DETECTRON2S = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
# Files that the documentation names and that are not here: written by the reader of an example, or by training.
NOT_HERE = {"kits.py", "kits.yaml", "config.yaml", "environment.txt", DETECTRON2S}
SOURCES = {path.name for folder in ("lens_d2", "datasets") for path in (ROOT / folder).rglob("*.py")}


def code_of(text: str) -> str:
    """Everything that is set as code."""
    return "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_scripts_and_configs_exist(name):
    text = (ROOT / name).read_text()
    links = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    files = re.findall(r"(?<![\w./])((?:[\w.-]+/)*[\w-]+\.(?:py|yaml|txt|toml))\b", code_of(text))
    here = (ROOT / name).parent
    absent = [link for link in links if not (here / link).exists()]
    named = set(files) - NOT_HERE - SOURCES
    absent += [
        path for path in named if not any((folder / path).exists() for folder in (ROOT, here, ROOT / "lens_d2"))
    ]
    assert absent == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)", code_of((ROOT / name).read_text())))
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


def test_the_two_commands_stand_first_in_the_readme():
    commands = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1].splitlines()
    assert [line.split("#")[0].strip() for line in commands] == ["make demo", "make test"]


def test_citation_names_both_papers():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    dois = [reference["doi"] for reference in citation["references"]]
    assert dois == ["10.1109/TMI.2020.3047598", "10.1109/TMI.2020.3022034"]
    version = re.search(r'__version__ = "(.+)"', (ROOT / "lens_d2/__init__.py").read_text())[1]
    assert citation["version"] == version


# Commands. What is in a block of bash, or stands in code as `python ...`, works as it stands.

RUN_AS_THEY_STAND = {
    "docs/add_dataset.md": "tests/test_add_dataset.py",
    "docs/evaluation.md": "tests/commands/test_evaluate.py",
}
# Commands of the shell, not of the project, and commands that need what is not here.
NOT_RUN = {
    "export": "sets a variable of the shell",
    "source": "changes the shell",
    "docker": "needs a Docker engine; tests/test_docker.py checks what the image copies and runs",
}
# Commands that are only parsed, by a part of them, and why. All others run in tests/test_advertised.py.
ONLY_PARSED = {
    "make ": "installs, or runs these tests; tests/conftest.py runs what `make demo` does",
    "--help": "test_every_command_tells_its_options",
    "--num-gpus 4": "four ranks; two run, by docs/scaling.md's command",
    "--num-gpus 8": "eight ranks, of one machine or of two; two run, by docs/scaling.md's command",
    "--nnodes 2": "needs two machines; torchrun's ranks of one run, by the command before it",
    "SOLVER.OPTIMIZER Adam": "trains on DeepLesion; tests/test_config.py has its settings",
    "prepare_phantom.py": "takes minutes at these sizes; the demo of tests/conftest.py writes the smallest",
    "-m benchmarks": "measures for minutes; tests/benchmarks",
    "-m experiments peers": "trains three detectors for an hour each; tests/experiments/test_peers.py",
    "-m experiments reproduce": "trains for hours; tests/experiments/reproduce/test_end_to_end.py",
    "-m experiments figures": "needs trained weights and a ledger; tests/experiments/test_figures.py",
    "-m experiments fusion": "needs a whole evaluation; tests/experiments/test_fusion.py",
    "-m experiments zoo": "trains for an hour; tests/experiments/test_zoo.py",
    "-m experiments cohort": "scans a dozen patients in each phase",
}


class Parsed(Exception):
    """Carries what a script's parser made of a command line."""


COMMANDS = sorted({(p, c) for p in DOCUMENTS if p not in RUN_AS_THEY_STAND for c in commands_in(p)})


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[f"{p}: {c}" for p, c in COMMANDS])
def test_commands_can_be_given(path, command, monkeypatch):
    """Scripts get as far as their options, configurations take the KEY VALUE pairs, make knows its targets."""
    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_0-9]+=\S*", words[0]):  # variables for this command
        words.pop(0)
    if words[0] in NOT_RUN or words[1:3] == ["-m", "experiments"] and len(words) < 5:
        return  # an experiment that is only named: see test_experiments_and_measurements_exist
    if words[0] == "torchrun":
        given = torchrun_parser().parse_args(words[1:])
        words = ["python", given.training_script, *given.training_script_args]
    if words[0] == "lens-d2":
        words[:1] = ["python", "-m", "lens_d2"]
    if "--help" in words:
        assert (ROOT / words[1]).is_file()  # test_every_command_tells_its_options has what -m names
        return
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = [word for word in words[1:] if "=" not in word]
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
        assert all(re.search(rf"\b{word.split('=')[0]}\b", makefile) for word in words[1:] if "=" in word)
        return
    assert words[0] == "python", f"{path}: how is `{command}` tested?"
    options = options_of(words[1:], monkeypatch)
    config = getattr(options, "config_file", None)
    if config and config not in NOT_HERE:
        cfg = get_cfg()
        add_lens_config(cfg)
        cfg.merge_from_file(str(ROOT / config))
        cfg.merge_from_list(options.opts if hasattr(options, "opts") else [])


def test_every_command_runs_or_says_why_it_is_only_parsed():
    named = re.compile(r"python -m experiments \w+")  # see test_experiments_and_measurements_exist
    commands = {command for _, command in COMMANDS if not named.fullmatch(command)}
    commands = {command for command in commands if command.split()[0] not in NOT_RUN}
    run = {advertised.command for group in RUN.values() for advertised in group}
    parsed = {command for command in commands if any(part in command for part in ONLY_PARSED)}
    assert commands - run - parsed == run & parsed == set()
    assert [part for part in ONLY_PARSED if not any(part in command for command in commands)] == []


def test_the_detectors_table_names_configurations_and_keys():
    """Their parts are trained in tests/test_one_stage_runs.py; CECN, by the harvester, in test_advertised.py."""
    text = (ROOT / "docs/detectors.md").read_text()
    given = re.findall(r"`(?:train_net\.py --config-file )?configs/(\w+\.yaml)((?: [\w.]+)*)`", text)
    assert len(given) > 5 and any("TRAINED_ON_BOTH" in opts for _, opts in given)
    for folder in ("configs", "configs/phantom"):
        for config, opts in given:
            cfg = get_cfg()
            add_lens_config(cfg)
            cfg.merge_from_file(str(ROOT / folder / config))
            cfg.merge_from_list(shlex.split(spelled_out(opts)))


def options_of(words: list[str], monkeypatch) -> argparse.Namespace:
    """What the command's own parser makes of its options; the command is stopped there."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        raise Parsed(original(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.chdir(ROOT)
    with pytest.raises(Parsed) as caught:
        start(words, monkeypatch)
    return caught.value.args[0]


def start(words: list[str], monkeypatch) -> None:
    """Does in this process what `python words` does: a script, or -m and a package."""
    is_package = words[0] == "-m"
    monkeypatch.setattr(sys, "argv", words[is_package:])
    if is_package:
        monkeypatch.delitem(sys.modules, f"{words[1]}.__main__", raising=False)
        runpy.run_module(words[1], run_name="__main__")
    else:
        monkeypatch.syspath_prepend(str(ROOT / Path(words[0]).parent))
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


SCRIPTS = [p for folder in ("tools", "datasets", "demo") for p in sorted((ROOT / folder).glob("*.py"))]
STARTED = ["train_net.py", *(str(p.relative_to(ROOT)) for p in SCRIPTS)]
STARTED += ["-m benchmarks", *(f"-m experiments {name}" for name in EXPERIMENTS)]


@pytest.mark.parametrize("command", STARTED)
def test_every_command_tells_its_options(command, monkeypatch):
    """A stray % in an option's help would end in a traceback."""
    written = []
    monkeypatch.setattr(argparse.ArgumentParser, "print_help", lambda self: written.append(self.format_help()))
    with pytest.raises(SystemExit) as ended:
        start([*command.split(), "--help"], monkeypatch)
    assert ended.value.code == 0 and "--help" in written[0]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_experiments_and_measurements_exist(name):
    code = code_of((ROOT / name).read_text()).replace("\\\n", " ")
    assert set(re.findall(r"-m experiments (\w+)", code)) <= {*EXPERIMENTS, "NAME"}
    taken = [names.split() for names in re.findall(r"-m benchmarks --only ([\w -]+)", code)]
    assert {name for names in taken for name in names} <= set(MEASUREMENTS)


@pytest.mark.parametrize(("path", "test"), RUN_AS_THEY_STAND.items())
def test_pages_with_tests_of_their_own(path, test):
    assert (ROOT / test).exists() and commands_in(path)


def test_the_readme_is_short_and_has_three_small_pictures():
    text = (ROOT / "README.md").read_text()
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 3 and all((ROOT / picture).stat().st_size < 200_000 for picture in pictures)
    prose = re.sub(r"```.*?```|\]\([^)]*\)", "", text, flags=re.DOTALL)
    assert 400 <= len(re.findall(r"[A-Za-z0-9][\w'-]*", prose)) <= 600


def test_inputs_names_tests_that_exist():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/inputs.md").read_text()))
    files = (ROOT / "tests").rglob("test_*.py")
    there = {name for path in files for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert len(named) > 50 and named - there == set()


def test_the_parts_in_a_plain_detectron2_detector():
    text = (ROOT / "docs/detectors.md").read_text()
    (code,) = re.findall(r"### In a plain Detectron2 detector.*?```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(code, names)
    names["cfg"].MODEL.DEVICE = "cpu"
    model = build_model(names["cfg"])
    assert type(model.proposal_generator).__name__ == "AFP" and type(model.roi_heads).__name__ == "LENSROIHeads"
