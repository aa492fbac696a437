"""Shapes, tubes and trees."""

import numpy as np
import pytest

from lens_d2.phantom.shapes import Blob, catmull_rom, ellipse_distance, grow_tree, random_rotation, tube, union


def test_distances_of_a_ball_and_their_union():
    ball, other = Blob(np.array([0.0, 0, 0]), np.full(3, 5.0)), Blob(np.array([20.0, 0, 0]), np.full(3, 5.0))
    x = np.array([0, 4, 5, 6, 10, 15.5], np.float32)
    distance = ball(x, 0 * x, 0 * x)
    np.testing.assert_allclose(distance[1:4], [1, 0, -1], atol=0.25)
    both = union(distance, other(x, 0 * x, 0 * x))
    assert (both > 0).tolist() == [True, True, False, False, False, True] and (both >= distance).all()
    assert (union(distance, other(x, 0 * x, 0 * x), softness=4.0) >= both - 1e-4).all()
    low, high = ball.bounds
    assert (low < -5).all() and (high > 5).all() and ball.mean_radius == pytest.approx(5)


@pytest.mark.parametrize("squareness", [0.0, 0.7])
def test_an_ellipse_meets_its_axes(squareness):
    x, y = np.array([30.0, 0, 29, 31]), np.array([0.0, 20, 0, 0])
    np.testing.assert_allclose(ellipse_distance(x, y, 30.0, 20.0, squareness), [0, 0, 1, -1], atol=0.05)


def test_rotations_and_splines():
    rotation = random_rotation(np.random.default_rng(0))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    nodes = np.array([[0.0, 0], [1, 2], [3, 1], [4, 4]])
    curve = catmull_rom(nodes, 5)
    assert len(curve) == 16
    np.testing.assert_allclose(curve[::5], nodes)


def test_a_tube_runs_from_end_to_end_without_gaps():
    beads = tube([(0, 0, 0), (20, 0, 0), (40, 10, 0)], [4, 3, 2])
    np.testing.assert_allclose(beads[[0, -1]], [[0, 0, 0, 4], [40, 10, 0, 2]], atol=1e-9)
    gaps = np.linalg.norm(np.diff(beads[:, :3], axis=0), axis=1)
    assert (gaps < beads[:-1, 3]).all()


def test_a_tree_reaches_its_targets_and_tapers():
    rng = np.random.default_rng(0)
    targets = rng.uniform(-50, 50, (30, 3)) + [0, 0, 80]
    beads = grow_tree((0, 0, 0), targets, 0.8, rng=rng)
    apart = np.linalg.norm(beads[:, None, :3] - targets, axis=2)
    assert apart.min(axis=0).max() < 1e-3
    near = np.linalg.norm(beads[:, :3], axis=1) < 10
    assert beads[near, 3].min() > 2 * 0.8 and beads[:, 3].min() == pytest.approx(0.8)
