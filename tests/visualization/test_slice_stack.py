"""Slices for a page: what companding keeps, and what a budget of bytes costs."""

import base64

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_d2.visualization.planes import OUTSIDE, compand, level_table
from lens_d2.visualization.slice_stack import make_stack


def decoded(image: str) -> np.ndarray:
    levels = cv2.imdecode(np.frombuffer(base64.b64decode(image), np.uint8), cv2.IMREAD_GRAYSCALE)
    return np.array(level_table())[levels]


@given(st.floats(-1024, 3071))
def test_companding_keeps_hu_to_half_a_level(hu):
    table = np.array(level_table())
    error = abs(table[compand(np.array(hu))] - hu)
    assert error <= (2.1 if -150 <= hu <= 250 else 10.5 if hu < -150 else 14 if hu <= 1250 else 46)


def test_beyond_the_scan_is_blacker_than_air():
    levels = compand(np.array([OUTSIDE, -1024.0, -1000.0]))
    assert level_table()[levels[0]] == OUTSIDE and levels[0] + 6 < levels[1] < levels[2]


def test_all_slices_fit_into_a_large_budget(report):
    stack = make_stack(report.volume, 10_000_000)
    assert list(stack.slices) == list(range(24)) and stack.left_out == 0 and not stack.is_reduced
    shown, true = decoded(stack.images[12]), report.volume.read([12])[0]
    soft = np.abs(true - 40) < 60
    assert np.abs(shown - true)[soft].mean() < 6


@pytest.mark.parametrize("share", [0.8, 0.4, 0.2])
def test_a_smaller_budget_is_kept_and_keeps_the_key_slices(report, share):
    full = sum(map(len, make_stack(report.volume, 10_000_000).images))
    stack = make_stack(report.volume, int(share * full), kept=[3, 19])
    assert sum(map(len, stack.images)) <= share * full and {3, 19} <= set(stack.slices)
    assert len(stack.images) == len(stack.slices)


def test_a_hopeless_budget_leaves_one_slice(report):
    stack = make_stack(report.volume, 1, kept=[3, 19])
    assert len(stack.images) == 1 and stack.left_out == 23
