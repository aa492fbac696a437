"""What a fresh machine relies on: package metadata, pinned versions, the Makefile's and the CI's wiring."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the project is installed with make")

DETECTRON2_COMMIT = "a59f0563"  # the official commit whose source the default wheel holds


def read_requirements(path: Path) -> list[Requirement]:
    """The requirements of a file that apply to this machine; options such as ``--hash`` are dropped."""
    text = re.sub(r"\\\n", " ", path.read_text())
    lines = (re.split(r"\s#|\s--", line)[0].strip() for line in text.splitlines())
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [r for r in requirements if r.marker is None or r.marker.evaluate()]


def read_pins(path: Path) -> dict[str, str]:
    """Canonical name to exact version."""
    pins = {}
    for requirement in read_requirements(path):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{path.name}: {requirement} is not pinned"
        pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def run_make(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs make as from a shell of its own, not as a part of the `make test` that may be running this."""
    inherited = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DETECTRON2")
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def test_import_without_detectron2_says_what_to_run(repo_root):
    blocker = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'detectron2':\n"
        "            raise ModuleNotFoundError('No module named ' + repr(name), name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "try:\n"
        "    from lens_d2 import add_lens_config\n"
        "except ModuleNotFoundError as error:\n"
        "    assert error.__cause__ is None and error.__suppress_context__\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", blocker], cwd=repo_root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["lens_d2 needs Detectron2: run `lens-d2 setup`, or in a clone `make setup`"]


def test_setup_py_reads_requirements_and_version(repo_root, monkeypatch):
    from setuptools import _distutils

    monkeypatch.chdir(repo_root)
    distribution = _distutils.core.run_setup("setup.py", stop_after="init")
    import lens_d2

    assert distribution.get_name() == "lens_d2"
    assert distribution.get_version() == lens_d2.__version__
    declared = {str(Requirement(r)) for r in distribution.install_requires}
    assert declared == {str(r) for r in read_requirements(repo_root / "requirements.txt")}
    assert not any("detectron2" in r for r in distribution.install_requires)
    assert distribution.metadata.license == "Apache-2.0"
    packages = {str(p.parent.relative_to(repo_root)) for p in (repo_root / "lens_d2").rglob("__init__.py")}
    assert {package.replace(".", "/") for package in distribution.packages} == packages


def test_every_package_folder_has_an_init_file(repo_root):
    folders = {path.parent for path in (repo_root / "lens_d2").rglob("*.py")}
    assert [str(f) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_has_a_pin_that_it_admits(repo_root, name):
    pins = read_pins(repo_root / "constraints.txt")
    for requirement in read_requirements(repo_root / name):
        version = pins.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} of {name} is missing from constraints.txt: run `make constraints`"
        assert requirement.specifier.contains(version), f"{requirement}, but pinned to {version}"


def test_tested_environment_is_the_pinned_one(repo_root):
    pins = read_pins(repo_root / "constraints.txt")
    for requirement in read_requirements(repo_root / "requirements.txt"):
        name = canonicalize_name(requirement.name)
        assert metadata.version(name) == pins[name], f"{name}: run `make setup`"


def test_detectron2_wheel_is_pinned_by_hash(repo_root):
    text = (repo_root / "requirements-detectron2.txt").read_text()
    assert read_pins(repo_root / "requirements-detectron2.txt") == {"sal-detectron2": "0.7.2"}
    assert re.findall(r"--hash=sha256:([0-9a-f]{64})\b", text) == [
        "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
    ]
    assert DETECTRON2_COMMIT in text


def test_nobody_imports_the_wheel_by_its_own_name_or_what_is_not_installed(repo_root):
    """Experiments and benchmarks are for those who have the repository; scripts import the package alone."""
    alone = "tools|experiments|benchmarks"
    wrong = {"lens_d2|tools|datasets|demo": alone, "experiments|benchmarks|tests": "tools"}
    for folders, names in wrong.items():
        statement = re.compile(rf"^\s*(?:import|from)\s+(?:sal_detectron2|{names})\b", re.MULTILINE)
        sources = [path for folder in folders.split("|") for path in (repo_root / folder).rglob("*.py")]
        assert len(sources) > 10
        assert [str(path) for path in sources if statement.search(path.read_text())] == []


def test_no_search_path_is_edited(repo_root):
    sources = [p for f in ("tools", "experiments", "benchmarks", "lens_d2") for p in (repo_root / f).rglob("*.py")]
    assert [str(path) for path in sources if "sys.path" in path.read_text()] == []


@needs_make
def test_make_setup_installs_the_wheel_by_default(repo_root, tmp_path):
    run = run_make(repo_root, "-n", "setup", f"VENV={tmp_path / 'venv'}", "CI=")
    assert run.returncode == 0, run.stderr
    assert "/bin/python -m lens_d2 setup" in run.stdout
    assert "-c constraints.txt -r requirements.txt -r requirements-dev.txt" in run.stdout
    assert "git+" not in run.stdout


@needs_make
def test_make_setup_builds_the_official_repository_at_the_pinned_commit(repo_root, tmp_path):
    run = run_make(repo_root, "-n", "setup", f"VENV={tmp_path / 'venv'}", "DETECTRON2=official")
    assert run.returncode == 0, run.stderr
    assert re.search(
        rf"git\+https://\S+/facebookresearch/detectron2@{DETECTRON2_COMMIT}[0-9a-f]{{32}}\"", run.stdout
    )
    assert "-m lens_d2 setup" not in run.stdout


@needs_make
@pytest.mark.parametrize("kind", ["wheel", "official"])
def test_make_does_nothing_where_the_environment_is_newer_than_its_files(repo_root, tmp_path, kind):
    stamp = tmp_path / f"installed-{kind}-default"
    stamp.touch()
    assert run_make(repo_root, "-q", "setup", f"VENV={tmp_path}").returncode == 0
    assert "pip" not in run_make(repo_root, "-n", "test", f"VENV={tmp_path}").stdout
    os.utime(stamp, (0, 0))
    assert run_make(repo_root, "-q", "setup", f"VENV={tmp_path}").returncode == 1
    assert "pip" in run_make(repo_root, "-n", "demo", f"VENV={tmp_path}").stdout


@needs_make
def test_make_installs_again_for_another_kind_of_detectron2_or_torch(repo_root, tmp_path):
    (tmp_path / "installed-wheel-cpu").touch()
    assert run_make(repo_root, "-q", "setup", f"VENV={tmp_path}").returncode == 0
    for other in ("DETECTRON2=official", "TORCH=cu126", "TORCH=default"):
        assert run_make(repo_root, "-q", "setup", f"VENV={tmp_path}", other).returncode == 1


@needs_make
def test_make_names_a_wrong_choice_or_a_missing_python_in_one_line(repo_root, tmp_path):
    run = run_make(repo_root, "setup", "DETECTRON2=fork")
    assert run.returncode == 2 and '"wheel" or "official", not "fork"' in run.stderr
    run = run_make(repo_root, "setup", "TORCH=cu99")
    assert run.returncode == 2 and '"default", "cpu", "cu126" or "cu130", not "cu99"' in run.stderr
    missing = tmp_path / "no-python3"
    run = run_make(repo_root, "setup", f"PYTHON={missing}", f"VENV={tmp_path / 'venv'}")
    assert run.returncode == 2
    assert f"'{missing}' is not Python 3.11, 3.12 or 3.13" in run.stderr.splitlines()[0]
    assert not (tmp_path / "venv").exists()


@needs_make
@pytest.mark.parametrize(
    ("version", "admitted"), [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)]
)
def test_make_takes_the_pythons_that_the_package_admits(repo_root, tmp_path, version, admitted):
    """With a stand-in that says which Python it is and makes no environment."""
    code = f"import sys; sys.version_info = {(*version, 0)}; sys.argv = sys.argv[1:]; "
    code += "exec(sys.argv[1]) if sys.argv[0] == '-c' else sys.exit(7)"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    python.chmod(0o755)
    run = run_make(repo_root, "setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert run.returncode == 2  # the stand-in ends when it is to make the environment
    assert ("is not Python 3.11, 3.12 or 3.13" not in run.stderr) == admitted
    declared = re.search(r'python_requires="([^"]+)"', (repo_root / "setup.py").read_text())[1]
    assert SpecifierSet(declared).contains(f"{version[0]}.{version[1]}.1") == admitted


@needs_make
@pytest.mark.parametrize("kind", ["cpu", "cu126", "cu130"])
def test_make_setup_takes_another_pytorch_first(repo_root, tmp_path, kind):
    lines = run_make(repo_root, "-n", "setup", f"VENV={tmp_path / 'venv'}", f"TORCH={kind}").stdout.splitlines()
    (torch,) = (i for i, line in enumerate(lines) if line.endswith(f"/whl/{kind} torch torchvision"))
    (rest,) = (i for i, line in enumerate(lines) if "-r requirements.txt" in line)
    assert torch < rest and "-c constraints.txt" in lines[torch]
    lines = run_make(repo_root, "-n", "setup", f"VENV={tmp_path / 'venv'}", "DEV=no").stdout
    assert "--index-url" not in lines and "requirements-dev.txt" not in lines


def test_ci_runs_exactly_make_test(repo_root):
    script = repo_root / ".ci/run"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert script.read_text().rstrip().splitlines()[-1] == "exec make test"


def test_license_is_the_whole_of_apache_2(repo_root):
    text = (repo_root / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert len(text.splitlines()) == 202
