"""Fixtures that more than one test file uses."""

from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# The same examples on every machine; `--hypothesis-profile=default` draws new ones.
settings.register_profile("deterministic", derandomize=True, database=None)
settings.load_profile("deterministic")


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
