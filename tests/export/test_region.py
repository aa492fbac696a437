"""The region is told where densities tell it, and nowhere else."""

import numpy as np
import pytest

from lens_d2.export.region import describe_region

PIXEL = (1.0, 1.0)


def chest() -> np.ndarray:
    """(H, W) HU: two lungs in soft tissue, air around."""
    hu = np.full((200, 300), -1000.0)
    hu[10:190, 10:290] = 40
    hu[40:160, 30:130] = hu[40:160, 170:270] = -820
    return hu


@pytest.mark.parametrize(
    ("box", "region"),
    [
        ([70, 90, 85, 105], "right lung"),  # the patient's right is on the left of the picture
        ([210, 90, 225, 105], "left lung"),
        ([140, 90, 155, 105], None),  # mediastinum
        ([120, 90, 140, 110], None),  # hilum: as much soft tissue as lung around it
        ([12, 90, 24, 102], None),  # chest wall
        ([0, 0, 8, 8], None),  # air beside the patient
        ([-5, -5, 400, 400], None),  # larger than the slice
    ],
)
def test_region_of_a_box(box, region):
    assert describe_region(chest(), np.array(box, float), PIXEL) == region


def test_an_oblique_slice_has_no_side():
    assert describe_region(chest(), np.array([70.0, 90, 85, 105]), PIXEL, has_sides=False) == "lung"


def test_the_middle_has_no_side():
    hu = chest()
    hu[40:160, 130:170] = -820
    assert describe_region(hu, np.array([145.0, 90, 155, 100]), PIXEL) == "lung"


def test_gas_in_the_bowel_is_no_lung():
    hu = chest()
    hu[40:160, 30:130] = -1000
    assert describe_region(hu, np.array([70.0, 90, 85, 105]), PIXEL) is None
