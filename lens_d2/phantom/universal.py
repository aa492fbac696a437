"""The universal dataset: studies and series of a patient, partially annotated as DeepLesion is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .case import (
    FEET,
    HEAD,
    REFERENCE_MATRIX,
    Case,
    Finding,
    axial_grid,
    find_lesions,
    padding_px,
    random_case,
    random_pose,
    scan_case,
)
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
STUDIES, MOST_STUDIES = 2.5, 8  # of a patient: mean of the geometric distribution, and its cut
SIZE_WEIGHT = 0.9  # of the log diameter in the choice of what is marked


@dataclass
class PatientResult:
    """Contribution of one patient to the dataset's files.

    Attributes:
        number: of the patient.
        split: "train", "val" or "test".
        rows: of ``DL_info.csv``.
        lesions: entry of the hidden truth for each row, for the labels; None for a noisy row.
        volumes: sub-volume -> entry of ``hidden_truth.json``.
    """

    number: int
    split: str
    rows: list[dict] = field(default_factory=list)
    lesions: list[dict | None] = field(default_factory=list)
    volumes: dict[str, dict] = field(default_factory=dict)


class Radiologist:
    """Marks some of a patient's lesions: large ones more often, and mostly in one series of a study.

    The preference for a lesion is partly the same in all studies, and partly drawn in each. Size weighs as it does
    in DeepLesion's test split, where 12% of the smallest lesions and 55% of the largest are marked.
    """

    def __init__(self, rng, case: Case, missing_rate: float):
        self._rng, self._case = rng, case
        self._need = np.log(missing_rate / (1 - missing_rate)) if missing_rate > 0 else -np.inf
        self._habits = {lesion.instance: rng.normal() for lesion in case.lesions}
        self.begin_study()

    def begin_study(self) -> None:
        """Draw the preferences of the next study."""
        self._moods = {lesion.instance: self._rng.normal() for lesion in self._case.lesions}

    def interest(self, finding: Finding, series: int) -> float:
        """Excess of the interest in a finding over what a mark needs; series of a study count from 0."""
        instance = finding.lesion.instance
        taste = 0.6 * self._habits[instance] + 0.6 * self._moods[instance] + 0.3 * self._rng.normal()
        size = SIZE_WEIGHT * np.log(finding.diameter_mm / 12.0)
        return float(size + 1.4 * taste - self._need - 0.8 * series + 0.2)


def write_patient(plan: CohortPlan, root: Path, split: str, number: int) -> PatientResult:
    """Scan one patient of the universal dataset, and write the slices below ``root/DeepLesion``."""
    rng = plan.rng("deeplesion", number)
    studies = min(int(rng.geometric(1 / STUDIES)), MOST_STUDIES)
    case = random_case(rng, plan, studies, at_least=3)
    radiologist, result = Radiologist(rng, case, plan.missing_rate), PatientResult(number, split)
    writer = _PatientWriter(plan, root, case, radiologist, rng, result)
    regions = _regions(rng, case)
    for study in range(studies):
        pose = random_pose(rng, case.anatomy)
        if study:
            radiologist.begin_study()
            if rng.random() < 0.25:
                regions = _regions(rng, case)
        for series in range(1 + int(rng.random() < 0.22)):
            breath = replace(pose, breath=pose.breath + rng.normal(0, 1.5))
            writer.write_series(study, series, breath, regions)
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


@dataclass
class _PatientWriter:
    """Writes a patient's series, and notes the lesions that they show."""

    plan: CohortPlan
    root: Path
    case: Case
    radiologist: Radiologist
    rng: np.random.Generator
    result: PatientResult

    def write_series(self, study: int, series: int, pose: Pose, regions) -> None:
        """Scan the series' sub-volumes one by one."""
        rng = self.rng
        settings = draw_settings(SCANNERS["deeplesion"], rng, REFERENCE_MATRIX / self.plan.matrix)
        name = f"{self.result.number:06d}_{study + 1:02d}_{series + 1:02d}"
        interval = settings.spacing[2]
        down = -1 if rng.random() < 0.95 else 1  # slices run from head to feet but in a few series
        start = 190.0 + rng.uniform(0, interval) if down < 0 else -260.0
        for low, high in regions:
            low, high = pose.to_scan(np.array([[0.0, 0, low], [0, 0, high]]))[:, 2] + rng.uniform(-12, 12)
            slices = int(np.clip((high - low) / interval, 14, 64))
            first = 1 + max(0, int(abs((high if down < 0 else low) - start) / interval))
            volume = f"{name}_{first:03d}-{first + slices - 1:03d}"
            if any(_touches(volume, other) for other in self.result.volumes):
                continue
            grid = axial_grid(rng, self.plan, settings, self.case, pose, float(high), slices, (1, 1, down))
            scan = scan_case(self.case, pose, grid, settings, study, rng, self.plan)
            findings = find_lesions(self.case, pose, scan)
            chosen = self._choose(findings, series)
            if chosen:  # DeepLesion releases no sub-volume without a mark
                write_png_slices(self.root / "DeepLesion" / "Images_png" / name, scan.hu, first)
                self._note(volume, study, grid, settings, findings, chosen)

    def _choose(self, findings: list[Finding], series: int) -> list[Finding]:
        """The findings that get a mark: the most interesting alone if the radiologist would mark none."""
        interest = [(self.radiologist.interest(f, series), f) for f in findings if f.whole]
        chosen = [f for level, f in interest if level > 0]
        return chosen or [f for _, f in sorted(interest, key=lambda pair: -pair[0])[:1]]

    def _note(self, volume, study, grid, settings: Settings, findings, chosen) -> None:
        """Rows of the table and the entry of the hidden truth for one sub-volume."""
        pad, result = padding_px(grid.spacing), self.result
        series, first = _parts(volume)[:2]
        entry = {
            "dataset": "deeplesion", "split": result.split, "patient": f"{result.number:06d}",
            "study": series.rsplit("_", 1)[0], "series": series, "first_slice": first,
            "size": [grid.shape[2], grid.shape[1], grid.shape[0]], "spacing": list(grid.spacing),
            "phase": settings.phase, "lesions": [],
        }  # fmt: skip
        limits = np.array([grid.shape[2], grid.shape[1]] * 2)
        for finding in findings:
            truth = finding.truth(pad, grid.shape)
            truth["id"] = f"{result.number:06d}/{finding.lesion.instance:03d}"
            extent = finding.mark.extent + [-pad, -pad, pad, pad]
            truth["key_box"] = np.clip(extent, 0, limits).round(3).tolist()
            truth["annotated"] = finding in chosen
            entry["lesions"].append(truth)
            if truth["annotated"]:
                ends = finding.mark.ends + self.rng.normal(0, 0.25, (4, 2))
                self._add_row(volume, study, grid, finding, ends, truth)
                if self.rng.random() < NOISY_SHARE:
                    off = ends + self.rng.normal(0, 8, 2)
                    self._add_row(volume, study, grid, finding, off, None)
        result.volumes[volume] = entry

    def _add_row(self, volume, study, grid, finding: Finding, ends, truth: dict | None) -> None:
        """Add a row of ``DL_info.csv``, a noisy one without ``truth``."""
        row = _row(self.result, self.case.anatomy, grid, volume, finding, ends, study)
        self.result.rows.append({**row, "Possibly_noisy": int(truth is None)})
        self.result.lesions.append(truth)


def _parts(volume: str) -> tuple[str, int, int]:
    """Series, first and last slice of a sub-volume's name."""
    series, span = volume.rsplit("_", 1)
    return series, *map(int, span.split("-"))


def _touches(one: str, other: str) -> bool:
    """Whether two sub-volumes are of one series and not separated by missing slices."""
    (a, a1, a2), (b, b1, b2) = _parts(one), _parts(other)
    return a == b and a1 <= b2 + 1 and b1 <= a2 + 1


def _row(result, anatomy, grid, volume, finding: Finding, ends, study: int) -> dict:
    """The columns of ``DL_info.csv``; x and y count pixels from 1, as the release does."""
    series, first, last = _parts(volume)
    patient, study_number, series_number = series.split("_")
    pad = padding_px(grid.spacing)
    side = grid.shape[2]
    ends = np.clip(ends, 1, side - 1) + 0.5  # pixel edges -> centres counted from 1
    low, high = ends.min(axis=0) - pad, ends.max(axis=0) + pad
    box = np.clip(np.concatenate([low + 0.5, high - 0.5]), 1, side)  # inclusive, from 1
    lengths = np.linalg.norm(ends[1::2] - ends[::2], axis=1)
    key = finding.mark.key_slice + first
    centre = finding.lesion.centre
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
        "Patient_gender": anatomy.sex,
        "Patient_age": anatomy.age + study,
        "Train_Val_Test": SPLITS[result.split],
    }


def _text(numbers) -> str:
    return ", ".join(f"{float(v):.6g}" for v in numbers)
