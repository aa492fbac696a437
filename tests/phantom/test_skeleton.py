"""Bones: vertebrae behind the middle, a free canal, ribs in the wall."""

import numpy as np

from lens_d2.phantom.torso import CANAL_Y, SPINE_Y


def test_the_spine_has_bodies_discs_and_a_canal(anatomy):
    bones = anatomy.skeleton
    z = np.linspace(-150, 120, 400, dtype=np.float32)
    column, bodies, _ = bones.spine(0 * z, 0 * z + np.float32(SPINE_Y), z)
    assert (column > 0).all() and 0.6 < (bodies > 0).mean() < 0.95  # discs between them
    levels = np.diff(bones.level(z)[[0, -1]])[0]
    assert abs(np.count_nonzero(np.diff((bodies > 0).astype(int)) == 1) - levels) <= 1.5
    _, bodies, arches = bones.spine(0 * z, 0 * z + np.float32(CANAL_Y), z)
    assert (np.maximum(bodies, arches) < 0).all() and (
        bones.canal(0 * z, 0 * z + np.float32(CANAL_Y), z) > 0
    ).all()
    assert (bones.pitch(np.array([-100.0, 0])) == np.array([34.4, 25.4], np.float32)).all()


def test_ribs_lie_in_the_wall_of_the_chest(anatomy):
    points = np.random.default_rng(0).uniform((-150, -100, -40), (150, 90, 120), (40_000, 3)).astype(np.float32)
    bone, _ = anatomy.skeleton.ribs(*anatomy.skeleton.rib_place(*points.T))
    inside = points[bone > 0]
    assert len(inside) > 100
    assert (anatomy.torso.cavity(*inside.T) < 0).all() and (anatomy.torso.skin(*inside.T) > 0).all()
