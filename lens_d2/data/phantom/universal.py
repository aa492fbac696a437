"""The universal dataset: studies and series of a patient, partially annotated as DeepLesion is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .case import FEET, HEAD, REFERENCE_MATRIX, Case, Finding, axial_grid, find_lesions, padding_px, random_case
from .case import random_pose, scan_case
from .plan import CohortPlan
from .scanner import SCANNERS, Settings, draw_settings
from .space import Pose
from .writers import write_png_slices

SPLITS = {"train": 1, "val": 2, "test": 3}
COARSE_TYPE = {
    "bone_lesion": 1, "abdominal_node": 2, "adrenal_lesion": 2, "mediastinal_node": 3, "liver_tumour": 4,
    "lung_nodule": 5, "kidney_lesion": 6, "soft_tissue_lesion": 7,
}  # fmt: skip
NOISY_SHARE = 0.02


@dataclass
class PatientResult:
    """What one patient leaves for the dataset's files.

    Attributes:
        rows: rows of ``DL_info.csv`` as dicts.
        lesions: beside each row, the Finding's truth entry, for the labels (None for a noisy row).
        volumes: sub-volume -> entry of ``hidden_truth.json``.
    """

    number: int
    split: str
    rows: list[dict] = field(default_factory=list)
    lesions: list[dict | None] = field(default_factory=list)
    volumes: dict[str, dict] = field(default_factory=dict)


def write_patient(plan: CohortPlan, root: Path, split: str, number: int) -> PatientResult:
    """Scan one patient of the universal dataset and write the slices under ``root/DeepLesion``."""
    rng = plan.rng("deeplesion", number)
    studies = int(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))
    case = random_case(rng, plan, studies, at_least=3)
    result = PatientResult(number, split)
    regions = _regions(rng, case)
    habits = {lesion.instance: rng.normal() for lesion in case.lesions}
    for study in range(studies):
        pose = random_pose(rng, case.anatomy)
        if study and rng.random() < 0.25:
            regions = _regions(rng, case)
        mood = {lesion.instance: rng.normal() for lesion in case.lesions}
        for series in range(1 + int(rng.random() < 0.22)):
            settings = draw_settings(SCANNERS["deeplesion"], rng, REFERENCE_MATRIX / plan.matrix)
            name = f"{number:06d}_{study + 1:02d}_{series + 1:02d}"
            marked = lambda f, s=series: _is_marked(rng, plan, f, habits, mood, s)  # noqa: E731
            breath = Pose(pose.scale, pose.angles, pose.shift, pose.breath + rng.normal(0, 1.5), pose.build)
            _write_series(result, plan, root, case, breath, settings, name, study, regions, marked, rng)
    return result


def _regions(rng, case: Case) -> list[tuple[float, float]]:
    """One or two spans of the body (anatomy mm, low and high) around lesions of the patient."""
    spans: list[tuple[float, float]] = []
    for _ in range(1 + int(rng.random() < 0.3)):
        anchor = case.lesions[rng.integers(len(case.lesions))].centre[2] + rng.uniform(-25, 25)
        length = rng.uniform(55, 105)
        low = float(np.clip(anchor - length / 2, FEET, HEAD - length))
        if all(low > b + 25 or low + length < a - 25 for a, b in spans):
            spans.append((low, low + length))
    return sorted(spans, reverse=True)


def _is_marked(rng, plan: CohortPlan, finding: Finding, habits, mood, series: int) -> bool:
    """Whether the radiologist marks a lesion: larger ones more often, and mostly in one series of a study."""
    instance = finding.lesion.instance
    taste = 0.6 * habits[instance] + 0.6 * mood[instance] + 0.3 * rng.normal()
    need = np.log(plan.missing_rate / (1 - plan.missing_rate)) if plan.missing_rate > 0 else -50.0
    size = 2.0 * np.log(finding.diameter_mm / 14.0)
    return bool(size + 1.4 * taste > need + 0.8 * series - 0.25)


def _write_series(result, plan, root, case, pose, settings: Settings, name, study, regions, marked, rng):
    """Scan the series' sub-volumes one by one and note what they show."""
    interval = settings.spacing[2]
    top_of_scan = 190.0 + rng.uniform(0, interval)
    down = -1 if rng.random() < 0.95 else 1  # slices run from head to feet but in a few series
    for low, high in regions:
        bounds = pose.to_scan(np.array([[0.0, 0, low], [0, 0, high]]))[:, 2] + rng.uniform(-12, 12)
        slices = int(np.clip((bounds[1] - bounds[0]) / interval, 14, 40))
        first = max(1, int(round((top_of_scan - bounds[1]) / interval)) + 1)
        if down > 0:
            first = max(1, int(round((bounds[0] + 260) / interval)) + 1)
        volume = f"{name}_{first:03d}-{first + slices - 1:03d}"
        if any(_touches(volume, other) for other in result.volumes):
            continue
        grid = axial_grid(rng, plan, settings, case, pose, float(bounds[1]), slices, (1, 1, down))
        scan = scan_case(case, pose, grid, settings, study, rng, plan)
        findings = find_lesions(case, pose, scan)
        chosen = [f for f in findings if f.whole and marked(f)]
        if not chosen:
            chosen = sorted((f for f in findings if f.whole), key=lambda f: -f.diameter_mm)[:1]
        if not chosen:
            continue  # DeepLesion releases no sub-volume without a mark
        write_png_slices(root / "DeepLesion" / "Images_png" / name, scan.hu, first)
        _note(result, volume, first, scan.grid, settings, findings, chosen, case, pose, study, rng)


def _touches(one: str, other: str) -> bool:
    """Whether two sub-volumes are of one series and not separated by missing slices."""
    (a, span_a), (b, span_b) = one.rsplit("_", 1), other.rsplit("_", 1)
    if a != b:
        return False
    (a1, a2), (b1, b2) = (tuple(map(int, s.split("-"))) for s in (span_a, span_b))
    return a1 <= b2 + 1 and b1 <= a2 + 1


def _note(result, volume, first, grid, settings, findings, chosen, case, pose, study, rng):
    """Rows of the table and the entry of the hidden truth for one sub-volume."""
    pad = padding_px(grid.spacing)
    series = volume.rsplit("_", 1)[0]
    entry = {
        "dataset": "deeplesion", "split": result.split, "patient": f"{result.number:06d}",
        "study": series.rsplit("_", 1)[0], "series": series, "first_slice": first,
        "size": [grid.shape[2], grid.shape[1], grid.shape[0]], "spacing": list(grid.spacing),
        "phase": settings.phase, "lesions": [],
    }  # fmt: skip
    for finding in findings:
        truth = finding.truth(pad, grid.shape)
        truth["id"] = f"{result.number:06d}/{finding.lesion.instance:03d}"
        extent = finding.mark.extent + [-pad, -pad, pad, pad]
        limits = np.array([grid.shape[2], grid.shape[1]] * 2)
        truth["key_box"] = np.clip(extent, 0, limits).round(3).tolist()
        truth["annotated"] = finding in chosen
        entry["lesions"].append(truth)
        if truth["annotated"]:
            ends = finding.mark.ends + rng.normal(0, 0.25, (4, 2))
            row = _row(result, case, pose, grid, volume, settings, finding, ends, study)
            result.rows.append(row)
            result.lesions.append(truth)
            if rng.random() < NOISY_SHARE:
                off = ends + rng.normal(0, 8, 2)
                result.rows.append(
                    {**_row(result, case, pose, grid, volume, settings, finding, off, study), "Possibly_noisy": 1}
                )
                result.lesions.append(None)
    result.volumes[volume] = entry


def _row(result, case, pose, grid, volume, settings, finding: Finding, ends, study) -> dict:
    """One row of ``DL_info.csv``; x and y count pixels from 1, as the release does."""
    series, span = volume.rsplit("_", 1)
    first, last = map(int, span.split("-"))
    patient, study_number, series_number = series.split("_")
    pad = padding_px(grid.spacing)
    side = grid.shape[2]
    ends = np.clip(ends, 1, side - 1) + 0.5  # pixel edges -> centres counted from 1
    low, high = ends.min(axis=0) - pad, ends.max(axis=0) + pad
    box = np.clip(np.concatenate([low + 0.5, high - 0.5]), 1, side)  # inclusive, from 1
    lengths = np.linalg.norm(ends[1::2] - ends[::2], axis=1)
    key = finding.mark.key_slice + first
    torso, centre = case.anatomy.torso, finding.lesion.centre
    place = [(centre[0] + 165) / 330, (centre[1] + 120) / 240, (HEAD + 20 - centre[2]) / 700 + 0.3]
    window = "-1500, 500" if finding.lesion.kind == "lung_nodule" else "-175, 275"
    return {
        "File_name": f"{series}_{key:03d}.png",
        "Patient_index": int(patient),
        "Study_index": int(study_number),
        "Series_ID": int(series_number),
        "Key_slice_index": key,
        "Measurement_coordinates": _text(ends.ravel()),
        "Bounding_boxes": _text(box),
        "Lesion_diameters_Pixel_": _text(sorted(lengths, reverse=True)),
        "Normalized_lesion_location": _text(np.clip(place, 0, 1)),
        "Coarse_lesion_type": -1 if result.split == "train" else COARSE_TYPE[finding.lesion.kind],
        "Possibly_noisy": 0,
        "Slice_range": f"{first}, {last}",
        "Spacing_mm_px_": _text([*grid.spacing[:2], -grid.direction[2] * grid.spacing[2]]),
        "Image_size": f"{side}, {grid.shape[1]}",
        "DICOM_windows": window,
        "Patient_gender": case.anatomy.sex,
        "Patient_age": case.anatomy.age + study,
        "Train_Val_Test": SPLITS[result.split],
    }


def _text(numbers) -> str:
    return ", ".join(f"{float(v):.6g}" for v in numbers)
