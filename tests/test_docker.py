"""The Dockerfile without a Docker engine: what it copies and runs exists (tools/build_image.sh tries it)."""

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def read_instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) pairs, with continued lines joined and comments dropped."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def instructions(repo_root):
    return read_instructions(repo_root / "Dockerfile")


def arguments_of(instructions, name):
    return [arguments for instruction, arguments in instructions if instruction == name]


def is_in_context(path: str, ignore_file: Path) -> bool:
    """Whether the build context holds a path: the last matching line of .dockerignore decides."""
    included = True
    for line in ignore_file.read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        if any(fnmatch.fnmatch(str(p), pattern) for p in (Path(path), *Path(path).parents[:-1])):
            included = line.startswith("!")
    return included


def test_build_context_holds_the_source_and_nothing_else(repo_root):
    ignore_file = repo_root / ".dockerignore"
    needed = ["train_net.py", "lens_d2/io/errors.py", "configs/lens_multi.yaml", "datasets/README.md", "Makefile"]
    needed += ["setup.py", "requirements.txt", "requirements-detectron2.txt", "constraints.txt", "demo/predict.py"]
    needed += ["tools/evaluate.py", "experiments/__main__.py", "benchmarks/__main__.py"]
    unwanted = [".git/config", ".venv/bin/pip", "output/model_final.pth", "datasets/DeepLesion/DL_info.csv"]
    assert [path for path in needed if not (repo_root / path).exists()] == []
    assert [path for path in needed if not is_in_context(path, ignore_file)] == []
    assert [path for path in unwanted if is_in_context(path, ignore_file)] == []


def test_everything_is_there_when_the_environment_is_made(repo_root, instructions):
    """`make setup` ends by importing the package: copied in part, it would fail there."""
    names = [name for name, _ in instructions]
    assert arguments_of(instructions, "COPY") == [". ."]
    setup = next(i for i, (name, text) in enumerate(instructions) if name == "RUN" and "make setup" in text)
    assert names.index("COPY") < setup
    assert names.count("FROM") == 1


def test_options_of_make_exist(repo_root, instructions):
    makefile = (repo_root / "Makefile").read_text()
    (environment, *_) = arguments_of(instructions, "ENV")
    assert re.search(r"^VENV \?=", makefile, re.M) and re.search(r"^DEV \?=", makefile, re.M)
    assert "VENV=/opt/venv" in environment and "DEV=no" in environment
    assert 'make setup TORCH="${TORCH}"' in " ".join(arguments_of(instructions, "RUN"))
    assert arguments_of(instructions, "ARG") == ["BASE_IMAGE=python:3.12-slim", "TORCH=default", "USER_ID=1000"]


def test_default_command_runs(repo_root, instructions):
    (command,) = arguments_of(instructions, "CMD")
    words = re.findall(r'"([^"]*)"', command)
    assert words[0] == "python"
    run = subprocess.run([sys.executable, *words[1:]], cwd=repo_root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "--config-file" in run.stdout


def test_versions_are_the_projects(repo_root):
    text = (repo_root / "Dockerfile").read_text()
    assert re.findall(r"==|@[0-9a-f]{7,40}\b", text) == [], "a version that belongs into the requirements files"


def test_runs_as_a_user_with_data_and_output_as_volumes(instructions):
    assert arguments_of(instructions, "USER") == ["${USER_ID}"]
    assert arguments_of(instructions, "VOLUME") == ['["/data", "/output"]']
    assert any("DETECTRON2_DATASETS=/data" in arguments for arguments in arguments_of(instructions, "ENV"))


def test_shared_memory_is_noted(repo_root):
    assert "--shm-size" in (repo_root / "Dockerfile").read_text()


def test_the_script_that_tries_an_image_says_what_it_needs(repo_root, tmp_path):
    """On a machine without an engine: one line."""
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    script = repo_root / "tools/build_image.sh"
    run = subprocess.run(["/bin/sh", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (2, "build_image: needs docker or buildah\n")


def test_hadolint_finds_nothing(repo_root):
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("needs hadolint, which has no wheel for this machine")
    run = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=repo_root, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "", run.stdout + run.stderr
