"""Clearances from vessels, bowel and organs, and the spurs of the spine."""

import numpy as np

from lens_d2.phantom.anatomy import LABEL, ORGANS, spur_beads


def test_clearance_of_no_points_is_no_clearance(anatomy):
    assert anatomy.clearance(np.zeros((0, 3))).shape == (0,)
    aorta = next(p.shape for p in anatomy.parts if p.organ == "aorta")
    assert anatomy.clearance(aorta[40, :3])[0] < 0


def test_organs_have_numbers_and_solids_a_depth(anatomy):
    assert [LABEL[name] for name in ORGANS] == list(range(len(ORGANS)))
    assert anatomy.distance("left kidney", anatomy.solids["left kidney"].centre + [0, 0, 12]) > 5
    assert anatomy.distance("heart", (500, 0, 0)) < 0


def test_spurs_taper_upwards_and_downwards():
    beads = spur_beads(np.array([[20.0, 40, -60, 4]]))
    assert beads.shape == (5, 4) and beads[2].tolist() == [20, 40, -60, 4]
    assert beads[0, 3] == beads[4, 3] < beads[1, 3] < 4 and beads[4, 2] - beads[0, 2] == 8
    assert spur_beads(np.zeros((0, 4))).shape == (0, 4)
