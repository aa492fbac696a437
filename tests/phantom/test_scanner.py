"""Scans: CT numbers of organs, and the field of view."""

from dataclasses import replace

import numpy as np
import pytest

from lens_d2.phantom.anatomy import LABEL
from lens_d2.phantom.case import axial_grid, find_lesions, random_case, random_pose, scan_case
from lens_d2.phantom.plan import SIZES
from lens_d2.phantom.scanner import SCANNERS, draw_settings


@pytest.mark.parametrize("phase", ["none", "venous"])
def test_organs_have_their_ct_numbers(phase):
    rng = np.random.default_rng(1)
    plan = SIZES["small"]
    case = random_case(rng, plan)
    pose = random_pose(rng, case.anatomy)
    chosen = draw_settings(SCANNERS["deeplesion"], rng, 1.6)
    chosen = replace(chosen, phase=phase, strength=1.0, padding=None, spacing=(3.0, 3.0, 5.0))
    grid = axial_grid(rng, plan, chosen, case, pose, 60.0, 46, (1, 1, -1))
    scan = scan_case(case, pose, grid, chosen, 0, rng, plan, labels=True)
    expected = {"liver": (57, 108), "lung": (-845, -830), "subcutaneous fat": (-105, -102), "spleen": (48, 119),
                "aorta": (42, 150), "muscle": (50, 60)}  # fmt: skip
    for organ, values in expected.items():
        measured = scan.hu[scan.organs == LABEL[organ]].mean()
        assert abs(measured - values[phase == "venous"]) < (45 if organ == "lung" else 25), organ
    assert all(f.diameter_mm > 2 for f in find_lesions(case, pose, scan))
