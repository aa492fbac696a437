"""Poses can be undone, and a painted ball has its volume and place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.phantom.shapes import Blob
from lens_d2.phantom.space import Canvas, Pose, ScanGrid, Waves


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_poses_are_invertible(seed):
    rng = np.random.default_rng(seed)
    build = Waves.displacement(rng, 2.6, 210)
    pose = Pose(rng.uniform(0.92, 1.1, 3), rng.normal(0, 0.03, 3), rng.normal(0, 7, 3), rng.normal(0, 8), build)
    points = rng.uniform((-150, -110, -200), (150, 110, 170), (50, 3))
    np.testing.assert_allclose(pose.to_anatomy(pose.to_scan(points)), points, atol=0.05)


def test_a_painted_ball_has_its_volume_and_place():
    still = Pose(np.ones(3), np.zeros(3), np.zeros(3), 0.0)
    grid = ScanGrid((10, 64, 64), (2.0, 2.0, 3.0), (-63.0, -63.0, -13.5))
    canvas = Canvas(grid, still)
    ball = Blob(np.array([10.0, -6.0, 2.0]), np.full(3, 11.0))
    window = canvas.window(*ball.bounds)
    cover = canvas.coverage(canvas.evaluate(ball, window))
    assert cover.sum() * 2 * 2 * 1.5 == pytest.approx(4 / 3 * np.pi * 11**3, rel=0.04)
    index, beads = canvas.stamp(np.array([[10.0, -6.0, 2.0, 11.0]]))
    whole = np.zeros(canvas.hu.shape)
    whole[index] = beads
    assert np.abs(whole[window.index] - cover).max() < 0.12
