"""Voxels of the DICOM files."""

import numpy as np
import pytest
from helpers.dicom_checks import make_hu


@pytest.fixture
def hu() -> np.ndarray:
    """(k, j, i) int16."""
    return make_hu()
