"""Writing a whole cohort: every patient and scan as a job of its own, then the datasets' annotation files."""

from __future__ import annotations

import csv
import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np

from ..io.errors import DataError
from ..io.files import write_whole
from ..io.formats import write_boxes3d, write_lens_set, write_revised
from ..io.parallel import run_all
from . import labels
from .plan import CohortPlan
from .recist import BOX_PADDING_MM
from .single_type import write_lits, write_luna, write_nih_ln
from .universal import PatientResult, write_patient

MANIFEST = "phantom.json"
OWN = ("DeepLesion", "LUNA16", "LiTS", "NIH-LN", "lesanet", "cache", "hidden_truth.json", MANIFEST)
LAYOUT = 1
GENERATOR = 2  # raised with every change after which a plan gives other files


def write_cohort(
    plan: CohortPlan, output: Path, workers: int = 1, overwrite: bool = False, start: str = "spawn"
) -> dict:
    """Write a cohort.

    Everything is written beside ``output`` and renamed at the end: an interrupted run leaves nothing that could be
    taken for a cohort. The files depend on the plan alone, not on ``workers``.

    Args:
        plan: of the cohort.
        output: folder.
        workers: processes.
        overwrite: whether to replace a cohort that is there.
        start: method of starting processes, see ``run_all``.

    Returns:
        The manifest: the plan and the counts of all sets.

    Raises:
        DataError: ``output`` is not empty, or is to be overwritten and holds no cohort, or more than one.
    """
    output = Path(output).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if not overwrite:
            raise DataError(output, "not empty; choose another folder or --overwrite")
        if not (output / MANIFEST).is_file():
            raise DataError(output, f"holds no {MANIFEST}, so it is no synthetic cohort and is not overwritten")
        foreign = sorted(path.name for path in output.iterdir() if path.name not in OWN)
        if foreign:
            raise DataError(output / foreign[0], "is not the cohort's and would be lost: move it away")
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        manifest = _write(plan, part, workers, start)
        if output.exists():
            shutil.rmtree(output)
        part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _write(plan: CohortPlan, root: Path, workers: int, start: str) -> dict:
    results = _run_jobs(plan, root, workers, start)
    patients = [r for key, r in results.items() if key.startswith("patient")]
    scans = [r for key, r in results.items() if not key.startswith("patient")]
    rows, lesions = _write_marks(root, patients)
    volumes = {name: entry for p in patients for name, entry in p.volumes.items()}
    _write_released(plan, root, patients)
    _write_nodules(root, scans)
    _write_labels(plan, root, rows, lesions)
    volumes |= {scan.volume: scan.entry for scan in scans}
    truth = {"layout": LAYOUT, "padding_mm": BOX_PADDING_MM, "volumes": volumes}
    _write_json(root / "hidden_truth.json", truth)
    manifest = {"layout": LAYOUT, "generator": GENERATOR, "plan": plan.to_dict(), "counts": _counts(volumes)}
    _write_json(root / MANIFEST, manifest, indent=2)
    return manifest


def _run_jobs(plan: CohortPlan, root: Path, workers: int, start: str) -> dict:
    """All results, in the order of the jobs."""
    jobs = {}
    number = 0
    for split in ("train", "val", "test"):
        for _ in range(getattr(plan, split)):
            number += 1
            jobs[f"patient {number:05d}"] = partial(write_patient, plan, root, split, number)
    for dataset, write in (("luna", write_luna), ("lits", write_lits), ("nih_ln", write_nih_ln)):
        for scan in range(getattr(plan, dataset)):
            jobs[f"{dataset} {scan:05d}"] = partial(write, plan, root, scan)
    results = dict(run_all(jobs, "synthetic cohort", workers, start))
    for result in results.values():
        if isinstance(result, Exception):
            raise result
    return {key: results[key] for key in jobs}


def _write_marks(root: Path, patients: list[PatientResult]):
    rows = [row for patient in patients for row in patient.rows]
    lesions = [lesion for patient in patients for lesion in patient.lesions]
    path = root / "DeepLesion" / "DL_info.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows, lesions


def _key_boxes(entry: dict) -> np.ndarray:
    """(n, 5) z, x1, y1, x2, y2 of every lesion on its key slice."""
    return np.array([[x["key_slice"], *x["key_box"]] for x in entry["lesions"]]).reshape(-1, 5)


def _boxes3d(entry: dict) -> np.ndarray:
    return np.array([x["box3d"] for x in entry["lesions"]]).reshape(-1, 6)


def _share_of(patients, rng, total: int, share: float, taken: set) -> dict[str, dict]:
    """Sub-volumes of whole patients, at least one patient's, until they are ``share`` of all."""
    chosen: dict[str, dict] = {}
    for place in rng.permutation(len(patients)):
        if len(chosen) >= share * total and chosen:
            break
        if patients[place].number not in taken:
            taken.add(patients[place].number)
            chosen |= patients[place].volumes
    return chosen


def _write_released(plan: CohortPlan, root: Path, patients: list[PatientResult]) -> None:
    """The fully annotated sets, in the layouts in which the papers' authors released theirs."""
    folder = root / "DeepLesion" / "annotations"
    by_split = {s: [p for p in patients if p.split == s] for s in ("train", "val", "test")}
    entries = {s: {n: e for p in members for n, e in p.volumes.items()} for s, members in by_split.items()}
    lens = {s: {name: _boxes3d(e) for name, e in entries[s].items()} for s in ("val", "test")}
    write_lens_set(folder / "DeepLesion_manual_1K_test_release.pkl", lens)
    rng, taken = plan.rng("sets"), set()
    total = len(entries["train"])
    for file, share in (("Revised-Train744.pkl", plan.vm_share), ("Revised-Train100.pkl", plan.vh_share)):
        chosen = _share_of(by_split["train"], rng, total, share, taken)
        write_revised(folder / file, {name: _key_boxes(e) for name, e in chosen.items()})
    write_revised(folder / "Revised-Test1071.pkl", {n: _key_boxes(e) for n, e in entries["test"].items()})
    every_third = dict(list(entries["test"].items())[::3])
    write_boxes3d(folder / "3D-Box.pkl", {name: _boxes3d(e) for name, e in every_third.items()})
    _write_attributes(folder / "lens_1k_attributes.csv", entries)


def _write_attributes(path: Path, entries: dict) -> None:
    """The properties of each lesion of LENS's set, by its row in the set's array."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            "split volume lesion instance type organ diameter_mm thickness_mm phase contrast_hu".split()
        )
        for split in ("val", "test"):
            for name, entry in entries[split].items():
                for index, x in enumerate(entry["lesions"]):
                    writer.writerow([split, name, index, x["id"], x["type"], x["organ"], x["diameter_mm"],
                                     entry["spacing"][2], entry["phase"], x["contrast"]])  # fmt: skip


def _write_nodules(root: Path, scans) -> None:
    with open(root / "LUNA16" / "annotations.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"])
        for scan in scans:
            writer.writerows([uid, *(f"{v:.6f}" for v in numbers)] for uid, *numbers in scan.nodules)


def _write_labels(plan: CohortPlan, root: Path, rows, lesions) -> None:
    folder = root / "lesanet"
    _write_json(folder / "text_mined_labels.json", labels.text_mined(rows, lesions, plan.rng("sets", 1)))
    _write_json(folder / "hand_labeled_test_set.json", labels.hand_labelled(rows, lesions))
    write_whole(folder / "ontology.csv", labels.ontology_table().encode())


def _write_json(path: Path, content, indent=None) -> None:
    write_whole(path, (json.dumps(content, indent=indent) + "\n").encode())


def _counts(volumes: dict) -> dict:
    """Sub-volumes, slices and lesions of each set."""
    counts: dict = {}
    for entry in volumes.values():
        key = entry["dataset"] + (f"_{entry['split']}" if "split" in entry else "")
        row = counts.setdefault(key, {"volumes": 0, "slices": 0, "lesions": 0, "annotated": 0, "patients": set()})
        row["volumes"] += 1
        row["slices"] += entry["size"][2]
        row["lesions"] += len(entry["lesions"])
        row["annotated"] += sum(x["annotated"] for x in entry["lesions"])
        row["patients"].add(entry["patient"])
    return {key: {**row, "patients": len(row["patients"])} for key, row in counts.items()}
