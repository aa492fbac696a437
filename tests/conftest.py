"""Fixtures that more than one test file uses."""

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch.multiprocessing
from detectron2.config import CfgNode
from filelock import FileLock
from helpers.advertised import SHORT
from helpers.processes import run_line, start_ranks
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = (ROOT / "configs").resolve()

# The same examples on every machine; `--hypothesis-profile=default` draws new ones.
settings.register_profile("deterministic", derandomize=True, database=None)
settings.load_profile("deterministic")


torch.multiprocessing.start_processes = start_ranks


_parse, _parsed = CfgNode.load_yaml_with_base, {}


def _parse_once(filename: str, allow_unsafe: bool = False) -> dict:
    """Parses each of the project's own configs once a process: some thousand tests read them."""
    if CONFIGS not in Path(filename).resolve().parents:
        return _parse(filename, allow_unsafe)
    key = Path(filename).resolve(), allow_unsafe
    if key not in _parsed:
        _parsed[key] = _parse(filename, allow_unsafe)
    return deepcopy(_parsed[key])


CfgNode.load_yaml_with_base = staticmethod(_parse_once)


# What takes longest, by which parallel tests begin: so none of it is left at the end for one process alone.
LONGEST = ["test_advertised.py", "test_pages.py", "test_add_dataset.py", "engine/test_stages.py"]
LONGEST += ["experiments/reproduce/test_end_to_end.py", "engine/test_harvest.py", "commands/test_train.py"]
LONGEST += ["commands/test_predict_many.py", "commands/test_predict.py", "engine/test_launch.py"]
LONGEST += ["engine/test_preemption.py", "demo/test_tour.py", "phantom/test_cohort.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real annotation files and CT beside the repository, where there is one."""
    shared = ROOT.parent / "shared"
    if not shared.is_dir():
        pytest.skip("needs ../shared with the released annotation files and sample CT")
    return shared


@pytest.fixture(scope="session")
def load_script(repo_root) -> Callable[[str], ModuleType]:
    """load_script("tools/demo.py") is the script as a module; ``tools/`` and ``demo/`` are no packages."""

    def load(path: str) -> ModuleType:
        name = "_script_" + path.removesuffix(".py").replace("/", "_")
        spec = importlib.util.spec_from_file_location(name, repo_root / path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def demo(load_script, tmp_path_factory, worker_id) -> Path:
    """output/demo as `make demo` leaves it, of the smallest cohort and two steps of a narrow network.

    The first process that needs it makes it, for all.
    """
    own = tmp_path_factory.getbasetemp()
    checkout = (own if worker_id == "master" else own.parent) / "checkout"
    folder, done = checkout / "output/demo", checkout / "done"
    with FileLock(f"{checkout}.lock"):
        if not done.exists():
            make_demo(load_script("tools/demo.py"), folder)
            done.touch()
    return folder


def make_demo(tool: ModuleType, folder: Path) -> None:
    """Does what tools/demo.py does, with its commands forked."""
    short = [*shlex.split(SHORT), "TEST.OVERLAYS", "1", "DATASETS.TEST", "('phantom_deeplesion_1k_test',)"]

    def run(words: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
        ended = run_line(shlex.join(["python", *words[1:]]), cwd, **{**env, "OMP_NUM_THREADS": "1"})
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "subprocess", SimpleNamespace(run=run))
        assert tool.main(["--output", str(folder), "--size", "tiny", *short]) == 0


@pytest.fixture(scope="module")
def one_thread():
    """Sums in one order, whatever the machine: for tests that compare runs bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def array() -> np.ndarray:
    """(z, y, x) HU: a body of noise."""
    array = np.full((5, 40, 48), -1000, np.int16)
    array[:, 4:36, 4:44] = np.random.default_rng(0).normal(40, 60, (5, 32, 40)).astype(np.int16)
    return array
