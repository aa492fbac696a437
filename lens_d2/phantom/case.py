"""A patient with everything inside, posed and scanned, for the writers of all four datasets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .anatomy import Anatomy, random_anatomy
from .lesions import Lesion, random_lesions
from .mimics import Mimic, random_mimics
from .plan import CohortPlan
from .recist import BOX_PADDING_MM, Mark, measure
from .scanner import Scan, Settings, body_extent, scan_patient
from .space import Pose, ScanGrid

HEAD, FEET = 172.0, -205.0  # the part of the anatomy that is modelled, mm
REFERENCE_MATRIX = 208


@dataclass
class Case:
    """A patient with lesions and mimics of lesions."""

    anatomy: Anatomy
    lesions: list[Lesion]
    mimics: list[Mimic]


def random_case(rng, plan: CohortPlan, studies: int = 1, emphasis: dict | None = None, at_least: int = 0) -> Case:
    """Draw a patient.

    Args:
        rng: generator.
        plan: of the cohort.
        studies: number of studies, for the lesions' growth.
        emphasis: kind of lesion -> factor on its frequency.
        at_least: lesions that the patient has, at least.
    """
    anatomy = random_anatomy(rng)
    lesions = random_lesions(rng, anatomy, studies, plan.hardness, emphasis)
    while len(lesions) < at_least:
        lesions = random_lesions(rng, anatomy, studies, plan.hardness, {k: 2.0 for k in KINDS} | (emphasis or {}))
    return Case(anatomy, lesions, random_mimics(rng, anatomy))


KINDS = ("lung_nodule", "liver_tumour", "mediastinal_node", "abdominal_node")


def random_pose(rng, anatomy: Anatomy) -> Pose:
    """Draw a pose: the patient turned and shifted a little, with another breath."""
    angles = rng.normal(0, [0.02, 0.02, 0.045])
    return Pose(anatomy.scale, angles, rng.normal(0, [7, 6, 0]), float(rng.normal(0, 7)), anatomy.build)


def axial_grid(
    rng, plan: CohortPlan, settings: Settings, case: Case, pose: Pose, top: float, slices: int, direction
) -> ScanGrid:
    """Draw a grid of axial slices.

    The field of view fits the body loosely, as technicians set it; the matrix is a multiple of 16 pixels.

    Args:
        rng: generator.
        plan: of the cohort.
        settings: of the series.
        case: the patient.
        pose: of the patient.
        top: place of the highest slice in scan space, mm.
        slices: their number.
        direction: sign of each axis, x, y, z, see ``ScanGrid``.
    """
    spacing = np.array(settings.spacing)
    step = spacing * direction
    low, high = body_extent(case.anatomy)
    wanted = (high - low)[0] * rng.uniform(1.05, 1.2) / spacing[0]
    side = 16 * int(np.clip(np.ceil(wanted / 16), 4, plan.matrix // 16 + 1))
    centre = pose.shift[:2] + (low + high)[:2] / 2 + rng.normal(0, 4, 2) + [0, 4]
    origin = centre - step[:2] * (side - 1) / 2
    bottom = top - (slices - 1) * spacing[2]
    start = top if direction[2] < 0 else bottom
    return ScanGrid((slices, side, side), settings.spacing, (*origin, start), direction)


@dataclass
class Finding:
    """A lesion as one scan shows it.

    Attributes:
        lesion: of the patient.
        mark: its RECIST mark and extent.
        whole: whether its centre, and with it its largest cross-section, lies inside the scan.
        diameter_mm: length of the mark's long axis.
        contrast: mean HU of the lesion less that of a rim of 6 mm around it, on the key slice.
    """

    lesion: Lesion
    mark: Mark
    whole: bool
    diameter_mm: float
    contrast: float

    def truth(self, padding: float, shape) -> dict:
        """Entry of ``hidden_truth.json``, with boxes in the convention of records.

        Args:
            padding: of boxes in the plane, pixels.
            shape: (Z, H, W) of the scan, which clips them.
        """
        limits = np.array([shape[2], shape[1], shape[2], shape[1]])
        box = self.mark.box3d(padding)
        box[[0, 1, 3, 4]] = np.clip(box[[0, 1, 3, 4]], 0, limits)
        slices = [
            [int(z), *np.clip(np.array(b) + [-padding, -padding, padding, padding], 0, limits).round(3).tolist()]
            for z, *b in self.mark.slice_boxes
        ]
        return {
            "instance": self.lesion.instance,
            "type": self.lesion.kind,
            "organ": self.lesion.organ,
            "attributes": list(self.lesion.terms),
            "box3d": [round(float(v), 3) for v in box],
            "boxes": slices,
            "key_slice": int(self.mark.key_slice),
            "diameter_mm": round(self.diameter_mm, 2),
            "contrast": round(self.contrast, 1),
            "whole": self.whole,
            "annotated": False,
        }


def padding_px(spacing) -> float:
    """Padding of boxes in pixels, the same millimetres in every scan."""
    return BOX_PADDING_MM / spacing[0]


def find_lesions(case: Case, pose: Pose, scan: Scan) -> list[Finding]:
    """Find the lesions that a scan shows, in their order, but for caps of a single slice at its ends."""
    depth = scan.grid.shape[0]
    found = []
    for lesion in case.lesions:
        if lesion.instance not in scan.covers:
            continue
        place, cover = scan.covers[lesion.instance]
        mark = measure(place, cover)
        z = scan.grid.to_index(pose.to_scan(lesion.centre))[2]
        whole = bool(-0.5 <= z <= depth - 0.5)
        if not whole and len(mark.slice_boxes) < 2:
            continue
        diameter = mark.long_px * scan.grid.spacing[0]
        found.append(Finding(lesion, mark, whole, diameter, _contrast(scan, place, cover, mark)))
    return found


def _contrast(scan: Scan, place, cover, mark: Mark) -> float:
    z = mark.key_slice
    reach = max(2, round(6 / scan.grid.spacing[0]))
    inside = np.pad(cover[z - place[0].start], reach)
    rows = np.clip(np.arange(place[1].start - reach, place[1].stop + reach), 0, scan.hu.shape[1] - 1)
    columns = np.clip(np.arange(place[2].start - reach, place[2].stop + reach), 0, scan.hu.shape[2] - 1)
    plane = scan.hu[z][np.ix_(rows, columns)].astype(np.float32)
    lesion, rim = inside > 0.6, inside < 0.02
    if not lesion.any():
        lesion = inside >= inside.max()
    return float(plane[lesion].mean() - plane[rim].mean())


def scan_case(case, pose, grid, settings, study, rng, plan, **keep) -> Scan:
    """Scan a patient with the noise of the cohort's hardness; arguments as of ``scan_patient``."""
    loud = replace(settings, noise=settings.noise * (0.6 + 0.4 * plan.hardness))
    return scan_patient(case.anatomy, case.lesions, case.mimics, pose, grid, loud, study, rng, **keep)
