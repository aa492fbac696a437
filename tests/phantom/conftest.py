"""Fixtures of the tests of the synthetic cohort: one that is written, and one patient."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.phantom_cohort import PLAN

from lens_d2.phantom.anatomy import Anatomy, random_anatomy
from lens_d2.phantom.cohort import write_cohort
from lens_d2.phantom.space import Canvas, Pose, ScanGrid


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    write_cohort(PLAN, folder)
    return folder


@pytest.fixture(scope="session")
def truth(root) -> dict:
    return json.loads((root / "hidden_truth.json").read_text())["volumes"]


@pytest.fixture(scope="session")
def anatomy() -> Anatomy:
    return random_anatomy(np.random.default_rng(0))


@pytest.fixture
def small_canvas() -> Canvas:
    """20 mm around the origin of a patient who lies still."""
    grid = ScanGrid((20, 20, 20), (1.0, 1.0, 1.0), (-9.5, -9.5, -9.5))
    return Canvas(grid, Pose(np.ones(3), np.zeros(3), np.zeros(3), 0.0), subslices=1)
