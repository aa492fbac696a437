"""A patient on the table: the grid of a scan, and the truth of a finding."""

import numpy as np
import pytest

from lens_d2.phantom.case import Case, Finding, axial_grid, padding_px, random_pose
from lens_d2.phantom.lesions import Lesion
from lens_d2.phantom.plan import SIZES
from lens_d2.phantom.recist import Mark
from lens_d2.phantom.scanner import SCANNERS, body_extent, draw_settings
from lens_d2.phantom.shapes import Blob


@pytest.mark.parametrize("direction", [(1, 1, 1), (1, 1, -1), (-1, -1, 1)])
def test_the_grid_holds_the_body_and_ends_at_the_top(anatomy, direction):
    rng = np.random.default_rng(2)
    settings, pose = draw_settings(SCANNERS["lits"], rng), random_pose(rng, anatomy)
    grid = axial_grid(rng, SIZES["small"], settings, Case(anatomy, [], []), pose, 50.0, 20, direction)
    ends = grid.to_scan([[0, 0, 0], np.array(grid.shape[::-1]) - 1])
    assert ends[:, 2].max() == pytest.approx(50) and np.ptp(ends[:, 2]) == pytest.approx(19 * settings.spacing[2])
    assert grid.shape[1] == grid.shape[2] and grid.shape[1] % 16 == 0
    low, high = body_extent(anatomy)
    assert np.ptp(ends[:, 0]) > (high - low)[0]


def test_truth_is_padded_in_the_plane_and_clipped():
    mark = Mark(3, np.zeros((4, 2)), 9.0, 5.0, np.array([[2, 1, 5, 8, 9], [3, 2, 5, 9, 10.5]]), np.array([20, 25]))
    lesion = Lesion(4, "lung_nodule", Blob(np.zeros(3), np.ones(3)), "lung", np.zeros(3), 1.0, terms=("solid",))
    truth = Finding(lesion, mark, True, 18.0, 100.0).truth(padding_px((2.0, 2.0, 3.0)), (5, 12, 40))
    assert truth["box3d"] == [0, 3, 2, 11, 12, 3]  # 2 pixels are 4 mm
    assert truth["boxes"] == [[2, 0, 3, 10, 11], [3, 0, 3, 11, 12]]
    assert (truth["instance"], truth["type"], truth["attributes"]) == (4, "lung_nodule", ["solid"])
