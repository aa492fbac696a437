"""Surfaces of the torso, in their order from outside to inside."""

import numpy as np
import pytest

from lens_d2.phantom.torso import random_torso


@pytest.mark.parametrize("sex", ["M", "F"])
def test_surfaces_lie_inside_each_other(sex):
    rng = np.random.default_rng(7)
    torso = random_torso(rng, sex)
    assert (torso.breasts > 0) == (sex == "F")
    points = rng.uniform((-170, -130, -200), (170, 110, 200), (20_000, 3)).astype(np.float32)
    skin, muscle, cavity = torso.skin(*points.T), torso.muscle(*points.T), torso.cavity(*points.T)
    lungs, belly, below = torso.lungs(*points.T), torso.belly_room(*points.T), torso.below_diaphragm(*points.T)
    assert (skin > muscle).all() and (muscle > cavity).all()
    assert (lungs > 0).any() and (cavity[lungs > 0] > 0).all() and (below[lungs > 0] < 0).all()
    assert (belly > 0).any() and (cavity[belly > 0] > 0).all() and (below[belly > 0] > 0).all()
    assert not ((lungs > 0) & (torso.mediastinum(*points.T) > 0)).any()
