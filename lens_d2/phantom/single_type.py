"""The single-type datasets: every lesion of their own type is annotated, all others are there without a mark."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .case import (
    FEET,
    HEAD,
    REFERENCE_MATRIX,
    axial_grid,
    find_lesions,
    padding_px,
    random_case,
    random_pose,
    scan_case,
)
from .plan import CohortPlan
from .scanner import SCANNERS, draw_settings
from .writers import write_dicom_series, write_image

IDENTITY_AFFINES = range(28, 48)  # LiTS: these numbers' headers are known to be wrong, so the phantom skips them


@dataclass
class ScanResult:
    """Contribution of one scan to its dataset's files.

    Attributes:
        volume: its name.
        entry: of ``hidden_truth.json``.
        nodules: rows of LUNA16's ``annotations.csv``.
    """

    volume: str
    entry: dict
    nodules: list[tuple] = field(default_factory=list)


def _scan(plan, dataset, number, span, emphasis, kinds, direction, **keep):
    """Scan the part ``span`` (low and high, anatomy mm) of a new patient."""
    rng = plan.rng(dataset, number)
    case = random_case(rng, plan, 1, emphasis)
    pose = random_pose(rng, case.anatomy)
    settings = draw_settings(SCANNERS[dataset], rng, REFERENCE_MATRIX / plan.matrix)
    low, high = pose.to_scan(np.array([[0.0, 0, max(span[0], FEET)], [0, 0, min(span[1], HEAD)]]))[:, 2]
    slices = max(14, int((high - low) / settings.spacing[2]))
    directions = direction(rng)
    grid = axial_grid(rng, plan, settings, case, pose, float(high), slices, directions)
    scan = scan_case(case, pose, grid, settings, 0, rng, plan, **keep)
    findings = find_lesions(case, pose, scan)
    own = [f for f in findings if f.lesion.kind in kinds]
    entry = {
        "dataset": dataset, "size": [grid.shape[2], grid.shape[1], grid.shape[0]], "spacing": list(grid.spacing),
        "first_slice": 0, "phase": settings.phase, "lesions": [],
    }  # fmt: skip
    pad = padding_px(grid.spacing)
    for finding in findings:
        truth = finding.truth(pad, grid.shape)
        truth["id"] = f"{dataset}-{number:04d}/{finding.lesion.instance:03d}"
        truth["annotated"] = finding in own
        entry["lesions"].append(truth)
    return case, scan, own, entry, rng


def _mask(scan, findings) -> np.ndarray:
    mask = np.zeros(scan.hu.shape, np.uint8)
    for finding in findings:
        place, cover = scan.covers[finding.lesion.instance]
        mask[place] |= (cover > 0.5).astype(np.uint8)
    return mask


def _complete(entry, patient, volume):
    return {**entry, "patient": patient, "study": volume, "series": volume}


def write_luna(plan: CohortPlan, root: Path, number: int) -> ScanResult:
    """Write a chest with its nodules as spheres in world millimetres; a fifth has x and y reversed."""

    def direction(rng):
        return (-1, -1, 1) if rng.random() < 0.2 else (1, 1, 1)

    rng = plan.rng("luna", number, 1)
    low = rng.uniform(-75, -35)
    span = (low, low + rng.uniform(125, 175))
    _, scan, own, entry, _ = _scan(plan, "luna", number, span, {"lung_nodule": 1.5}, ("lung_nodule",), direction)
    uid = f"2.25.{7_000_000_000 + plan.seed * 100_003 + number}"
    write_image(root / "LUNA16" / f"subset{number % 10}" / f"{uid}.mhd", scan.hu, scan.grid)
    nodules = []
    for finding in own:
        place, cover = scan.covers[finding.lesion.instance]
        weights = cover * (cover > 0.5)
        index = np.stack(np.meshgrid(*(np.arange(p.start, p.stop) for p in place), indexing="ij"), -1)
        centre = (index * weights[..., None]).sum(axis=(0, 1, 2)) / weights.sum()
        world = scan.grid.to_scan(centre[::-1])
        mean = (finding.mark.long_px + finding.mark.short_px) / 2 * scan.grid.spacing[0]
        nodules.append((uid, *world.tolist(), mean))
    return ScanResult(uid, _complete(entry, uid, uid), nodules)


def write_lits(plan: CohortPlan, root: Path, number: int) -> ScanResult:
    """Write a liver with its tumours (1 is liver, 2 is tumour); some have reversed axes."""

    def direction(rng):
        return [(1, 1, 1), (-1, -1, 1), (1, 1, -1)][rng.choice(3, p=[0.6, 0.25, 0.15])]

    rng = plan.rng("lits", number, 1)
    top = rng.uniform(15, 50)
    span = (top - rng.uniform(130, 180), top)
    _, scan, own, entry, _ = _scan(
        plan, "lits", number, span, {"liver_tumour": 1.6}, ("liver_tumour",), direction, with_liver=True
    )
    tumours = _mask(scan, own).astype(bool)
    labels = np.where(tumours, 2, scan.liver.astype(np.uint8)).astype(np.uint8)
    label = number if number < IDENTITY_AFFINES.start else number + len(IDENTITY_AFFINES)
    write_image(root / "LiTS" / f"volume-{label}.nii", scan.hu, scan.grid)
    write_image(root / "LiTS" / f"segmentation-{label}.nii", labels, scan.grid)
    volume = f"volume-{label}"
    return ScanResult(volume, _complete(entry, volume, volume))


def write_nih_ln(plan: CohortPlan, root: Path, number: int) -> ScanResult:
    """Write a chest (even numbers) or a belly (odd) as a DICOM series, with a mask of its nodes."""
    chest = number % 2 == 0
    patient = f"{'MED' if chest else 'ABD'}_LYMPH_{number // 2 + 1:03d}"
    rng = plan.rng("nih_ln", number, 1)
    low = rng.uniform(-30, 5) if chest else rng.uniform(-205, -180)
    span = (low, low + rng.uniform(120, 155))
    kinds = ("mediastinal_node",) if chest else ("abdominal_node",)
    _, scan, own, entry, _ = _scan(plan, "nih_ln", number, span, {kinds[0]: 2.2}, kinds, lambda rng: (1, 1, 1))
    uid = 8_000_000_000 + plan.seed * 100_003 + number * 10
    write_dicom_series(root / "NIH-LN" / "DICOM" / patient / "CT", scan.hu, scan.grid, patient, uid)
    write_image(root / "NIH-LN" / "masks" / patient / f"{patient}_mask.nii.gz", _mask(scan, own), scan.grid)
    return ScanResult(patient, _complete(entry, patient, patient))
