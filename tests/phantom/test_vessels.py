"""Vessels and airways: paths, trees inside their organs."""

import numpy as np

from lens_d2.phantom.vessels import airways, great_vessels, liver_trees, scatter


def test_scattered_points_lie_inside():
    points = scatter(
        np.random.default_rng(0), lambda x, y, z: 10 - np.hypot(x, np.hypot(y, z)), (-9, -9, -9), (9, 9, 9), 20
    )
    assert points.shape == (20, 3) and (np.linalg.norm(points, axis=1) < 7).all()


def test_the_aorta_tapers_from_chest_to_belly():
    aorta, *others = great_vessels(np.random.default_rng(0))
    assert aorta.organ == "aorta" and aorta.shape[-1, 2] < -150
    assert aorta.shape[0, 3] > aorta.shape[-1, 3] > 6
    assert {"vena cava", "portal vein", "pulmonary artery", "oesophagus"} <= {part.organ for part in others}


def test_airways_have_walls_around_their_lumen():
    walls, lumen, *_ = airways(np.random.default_rng(0))
    assert (walls.tissue, lumen.tissue) == ("airway wall", "air")
    np.testing.assert_array_equal(walls.shape[:, :3], lumen.shape[:, :3])
    assert (walls.shape[:, 3] > lumen.shape[:, 3] + 0.7).all()


def test_vessels_of_the_liver_lie_mostly_in_it(anatomy):
    liver = anatomy.solids["liver"]
    for part in liver_trees(np.random.default_rng(0), liver):
        assert np.mean(liver(*part.shape[:, :3].T.astype(np.float32)) > 0) > 0.85
