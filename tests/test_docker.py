"""The Dockerfile without a Docker engine: what it copies and runs exists, and its pins are the project's."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Commands of the base image (Rocky Linux), beside those that the Dockerfile installs.
BASE_COMMANDS = {"dnf", "mkdir", "chmod", "touch", "useradd"}


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


def test_everything_copied_exists_and_is_in_the_build_context(repo_root, instructions):
    sources = []
    for arguments in arguments_of(instructions, "COPY"):
        if not arguments.startswith("--from="):
            sources += arguments.split()[:-1]
    sources.remove(".")
    assert len(sources) > 5
    for source in sources:
        assert (repo_root / source).is_file(), source
        assert is_in_context(source, repo_root / ".dockerignore"), f".dockerignore hides {source}"


def test_build_context_holds_the_source_and_nothing_else(repo_root):
    ignore_file = repo_root / ".dockerignore"
    needed = ["train_net.py", "lens_d2/io/errors.py", "configs/lens_multi.yaml", "datasets/README.md"]
    needed += ["tools/evaluate.py", "experiments/__main__.py", "benchmarks/__main__.py"]
    unwanted = [".git/config", ".venv/bin/pip", "output/model_final.pth", "datasets/DeepLesion/DL_info.csv"]
    assert [path for path in needed if not is_in_context(path, ignore_file)] == []
    assert [path for path in unwanted if is_in_context(path, ignore_file)] == []


def test_every_command_exists(repo_root, instructions):
    makefile = (repo_root / "Makefile").read_text()
    installed = set()
    for arguments in arguments_of(instructions, "RUN"):
        for command in re.split(r"\s*&&\s*", arguments):
            words = command.split()
            assert words[0] in BASE_COMMANDS | installed, command
            if words[:3] == ["dnf", "install", "-y"]:
                installed |= set(words[3:])
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), command
    assert {"git", "gcc-c++", "python3.11-devel"} <= installed  # what building Detectron2 takes


def test_default_command_runs(repo_root, instructions):
    (command,) = arguments_of(instructions, "CMD")
    words = re.findall(r'"([^"]*)"', command)
    assert words[0] == "python"
    run = subprocess.run([sys.executable, *words[1:]], cwd=repo_root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "--config-file" in run.stdout


def test_versions_are_the_projects(repo_root, instructions):
    """`make setup` brings every version; the CUDA of the image is that of the pinned torch."""
    assert "make setup DETECTRON2=official" in arguments_of(instructions, "RUN")
    constraints = (repo_root / "constraints.txt").read_text()
    cuda = re.search(r"^cuda-toolkit==(\d+\.\d+)\.", constraints, re.MULTILINE)[1]
    (image,) = [a for a in arguments_of(instructions, "ARG") if a.startswith("CUDA_IMAGE=")]
    assert image.startswith(f"CUDA_IMAGE=nvidia/cuda:{cuda}.")
    text = (repo_root / "Dockerfile").read_text()
    assert re.findall(r"==|@[0-9a-f]{7,40}\b", text) == [], "a version that belongs into the requirements files"


def test_runs_as_a_user_with_data_and_output_as_volumes(instructions):
    assert arguments_of(instructions, "USER") == ["${USER_ID}"]
    assert "USER_ID=1000" in arguments_of(instructions, "ARG")
    assert arguments_of(instructions, "VOLUME") == ['["/data", "/output"]']
    assert any("DETECTRON2_DATASETS=/data" in arguments for arguments in arguments_of(instructions, "ENV"))


def test_shared_memory_is_noted(repo_root):
    assert "--shm-size" in (repo_root / "Dockerfile").read_text()


def test_hadolint_finds_nothing(repo_root):
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("needs hadolint, which has no wheel for this machine")
    run = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=repo_root, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "", run.stdout + run.stderr
