"""Mimics of lesions: where they lie, and that they are painted."""

import numpy as np
import pytest

from lens_d2.phantom.mimics import Mimic, normal_nodes, plaques, random_mimics, small_ball
from lens_d2.phantom.shapes import tube


def test_mimics_lie_where_they_belong(anatomy):
    rng = np.random.default_rng(3)
    aorta = next(part.shape for part in anatomy.parts if part.organ == "aorta")
    for plaque in plaques(rng, anatomy):
        assert np.abs(np.linalg.norm(aorta[:, :3] - plaque.shape.centre, axis=1) - aorta[:, 3]).min() < 1
    for node in normal_nodes(rng, anatomy):
        assert anatomy.clearance(node.shape.centre)[0] > 2 and node.shape.mean_radius < 5


def test_mimics_depend_on_the_generator_alone(anatomy):
    one, other = (random_mimics(np.random.default_rng(4), anatomy) for _ in range(2))
    names = [mimic.name for mimic in one]
    assert names == [mimic.name for mimic in other] and "normal node" in names


class Recorder:
    """A painter that notes what it fills on a canvas of 20 mm around the origin."""

    def __init__(self, canvas):
        self.canvas, self.filled = canvas, []

    def fill(self, index, cover, tissue):
        self.filled.append((tissue, float(cover.sum())))


def test_balls_and_tubes_are_painted_and_others_are_passed_over(small_canvas):
    painter = Recorder(small_canvas)
    rng = np.random.default_rng(5)
    Mimic("stone", small_ball(rng, (0, 0, 0), 3.0, 0.0), "calcium").paint(painter)
    Mimic("scar", tube([(-5, 0, 0), (5, 0, 0)], 1.5), "scar").paint(painter)
    Mimic("stone", small_ball(rng, (500, 0, 0), 3.0), "calcium").paint(painter)
    assert [tissue for tissue, _ in painter.filled] == ["calcium", "scar"]
    assert painter.filled[0][1] == pytest.approx(4 / 3 * np.pi * 3**3, rel=0.05)
