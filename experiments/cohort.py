"""Contact sheets of a synthetic cohort with boxes, and its lesions, marks and CT numbers beside real ones.

    python -m experiments cohort datasets/phantom --output output/cohort

The sheets and the table of marks open ``hidden_truth.json``; they are for people, not for training. Green boxes
are annotated lesions, orange ones lesions without a mark.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np
from tabulate import tabulate

from lens_d2.data.mapper import window as to_grey
from lens_d2.data.volume import read_volume
from lens_d2.io.files import whole_file, write_whole
from lens_d2.phantom.anatomy import LABEL
from lens_d2.phantom.case import axial_grid, random_case, random_pose, scan_case
from lens_d2.phantom.plan import SIZES, CohortPlan
from lens_d2.phantom.scanner import SCANNERS, Settings, draw_settings
from lens_d2.phantom.tissue import PHASES
from lens_d2.visualization.planes import WINDOWS

from .runs import add_output_argument, read_hidden_truth

# organ: phase -> published HU, with the number of the source in docs/phantom.md
PUBLISHED = {
    "subcutaneous fat": {"none": "-50 to -100 [8]"},
    "muscle": {"none": "49 ± 3 lean, 39 ± 8 obese [5]", "venous": "+18 to +26% [6]"},
    "visceral fat": {"none": "-50 to -100 [8]"},
    "lung": {"none": "-850 to -910 [8]"},
    "liver": {"none": "58 ± 9 [1]", "venous": "107 ± 14 [2], +56 ± 14 [3]"},
    "spleen": {"none": "35 to 55 [8]"},
    "kidney cortex": {"none": "30 to 50 [9]"},
    "kidney medulla": {"none": "30 to 50 [9]"},
    "aorta": {"none": "45 to 65 [8]", "arterial": "below the peak of 464 ± 58 [10]"},
    "portal vein": {"none": "45 to 65 [8]", "venous": "149 ± 18 (hepatic veins) [2]"},
    "pancreas": {"arterial": "112 ± 15 to 128 ± 17 [7]"},
    "vertebral marrow": {"none": "226 ± 44 below 30 years, 2.5 less a year [4]", "venous": "+12% [6]"},
}


# Counted in DeepLesion: the 800 completely annotated test sub-volumes that the authors of LENS released, and the
# marks of the official test split on them. Sizes are the longest sides of boxes, mm, with 8 mm of padding.
SIZES_MM = (8, 12, 16, 24, 32, 48, 80)
DEEPLESION = {
    **dict(zip((f"lesions of {a} to {b} mm" for a, b in itertools.pairwise(SIZES_MM)),
               ("6%", "23%", "43%", "13%", "10%", "4%"), strict=True)),
    **dict(zip((f"marked of {a} to {b} mm" for a, b in itertools.pairwise(SIZES_MM)),
               ("12%", "16%", "20%", "37%", "50%", "55%"), strict=True)),
    "marked of all": "25%",
    "lesions a sub-volume": "5.2",
    "marks a sub-volume": "1.5",
    "sub-volumes with 1, 2, 3 marks": "67%, 22%, 6%",
    "slices of a lesion (5, 25, 50, 75, 95%)": "3, 4, 7, 11, 22",
    "studies a patient": "2.4",
}  # fmt: skip


def picture(plane, window) -> np.ndarray:
    """(h, w, 3) uint8 of a slice in a window of HU."""
    grey = to_grey(plane.astype(np.float32), WINDOWS[window]).round().astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def with_boxes(image, boxes, scale) -> np.ndarray:
    """The picture enlarged, with its boxes (x1, y1, x2, y2, annotated)."""
    big = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    for *box, annotated in boxes:
        x1, y1, x2, y2 = (round(v * scale) for v in box)
        cv2.rectangle(big, (x1, y1), (x2, y2), (60, 220, 60) if annotated else (0, 150, 255), 1)
    return big


def record_of(root: Path, name: str, entry: dict) -> dict:
    """Record of a sub-volume of the cohort, with what ``read_volume`` needs."""
    paths = {
        "deeplesion": lambda: root / "DeepLesion" / "Images_png" / entry["series"],
        "luna": lambda: next((root / "LUNA16").glob(f"subset*/{name}.mhd")),
        "lits": lambda: root / "LiTS" / f"{name}.nii",
        "nih_ln": lambda: root / "NIH-LN" / "DICOM" / name / "CT",
    }
    record = {"file_name": str(paths[entry["dataset"]]()), "volume": name, "spacing": entry["spacing"]}
    if entry["dataset"] == "deeplesion":
        record |= {"first_slice": entry["first_slice"], "num_slices": entry["size"][2]}
    return record


def sheets(root: Path, output: Path, per_dataset: int, columns: int = 4, scale: float = 1.8) -> list[Path]:
    """One picture per dataset and window: slices spread over sub-volumes, preferring those with lesions."""
    truth = read_hidden_truth(root)
    written = []
    rng = np.random.default_rng(0)
    for dataset in ("deeplesion", "luna", "lits", "nih_ln"):
        names = [n for n, e in truth.items() if e["dataset"] == dataset]
        chosen = [names[i] for i in rng.permutation(len(names))[:per_dataset]]
        tiles: dict[str, list] = {window: [] for window in WINDOWS}
        for name in chosen:
            entry = truth[name]
            volume = read_volume(record_of(root, name, entry)).array
            keys = [x["key_slice"] for x in entry["lesions"]] or [len(volume) // 2]
            z = keys[rng.integers(len(keys))]
            boxes = [(*b, x["annotated"]) for x in entry["lesions"] for k, *b in x["boxes"] if k == z]
            for window, found in tiles.items():
                found.append(with_boxes(picture(volume[z], window), boxes, scale))
        for window, found in tiles.items():
            path = output / f"{dataset}_{window.replace(' ', '_')}.png"
            with whole_file(path) as temporary:
                cv2.imwrite(str(temporary), grid_of(found, columns))
            written.append(path)
    return written


def grid_of(tiles, columns) -> np.ndarray:
    """Tiles of differing size in rows of ``columns``."""
    height, width = (max(t.shape[a] for t in tiles) for a in (0, 1))
    cells = [np.pad(t, ((0, height - t.shape[0]), (0, width - t.shape[1]), (0, 0))) for t in tiles]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def organ_table(plan: CohortPlan, patients: int) -> list[list]:
    """Rows of organ, and for each phase the mean HU over patients, its deviation, and that within the organ."""
    measured: dict = {}
    for number in range(patients):
        rng = np.random.default_rng([plan.seed, number])
        case = random_case(rng, plan)
        pose = random_pose(rng, case.anatomy)
        for phase in PHASES:
            settings = draw_settings(SCANNERS["deeplesion"], rng)
            settings = Settings(
                **{**settings.__dict__, "phase": phase, "spacing": (1.9, 1.9, 4.0), "padding": None}
            )
            grid = axial_grid(rng, plan, settings, case, pose, 160.0, 88, (1, 1, -1))
            scan = scan_case(case, pose, grid, settings, 0, rng, plan, labels=True)
            for organ, number_of in LABEL.items():
                values = scan.hu[scan.organs == number_of]
                if len(values) > 30 and organ not in ("background", "lesion", "skin"):
                    measured.setdefault(organ, {}).setdefault(phase, []).append((values.mean(), values.std()))
    rows = []
    for organ in LABEL:
        if organ not in measured:
            continue
        row = [organ]
        for phase in PHASES:
            means, within = np.array(measured[organ][phase]).T
            row += [
                f"{means.mean():.0f} ± {means.std():.0f} ({within.mean():.0f})",
                PUBLISHED.get(organ, {}).get(phase, ""),
            ]
        rows.append(row)
    return rows


def marks_table(truth: dict[str, dict]) -> list[list[str]]:
    """Rows of a property, its value in the universal dataset of a cohort, and that of DeepLesion.

    Args:
        truth: sub-volumes by name, see :func:`runs.read_hidden_truth`.
    """
    entries = [entry for entry in truth.values() if entry["dataset"] == "deeplesion"]
    lesions = [(lesion, entry["spacing"]) for entry in entries for lesion in entry["lesions"]]
    sides = np.array(
        [np.subtract(x["key_box"][2:], x["key_box"][:2]).max() * spacing[0] for x, spacing in lesions]
    )
    marked = np.array([x["annotated"] for x, _ in lesions])
    slices = np.percentile([len(x["boxes"]) for x, _ in lesions], [5, 25, 50, 75, 95])
    marks = np.array([sum(x["annotated"] for x in entry["lesions"]) for entry in entries])
    studies = {entry["study"] for entry in entries}
    bins = [(sides >= low) & (sides < high) for low, high in itertools.pairwise(SIZES_MM)]
    values = [
        *(f"{inside.mean():.0%}" for inside in bins),
        *(f"{marked[inside].mean():.0%}" if inside.any() else "" for inside in bins),
        f"{marked.mean():.0%}",
        f"{len(lesions) / len(entries):.1f}",
        f"{marks.mean():.1f}",
        ", ".join(f"{(marks == count).mean():.0%}" for count in (1, 2, 3)),
        ", ".join(f"{count:.0f}" for count in slices),
        f"{len(studies) / len({entry['patient'] for entry in entries}):.1f}",
    ]
    return [[name, own, real] for (name, real), own in zip(DEEPLESION.items(), values, strict=True)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("cohort", type=Path, help="folder that datasets/prepare_phantom.py wrote")
    parser.add_argument("--slices", type=int, default=16, help="slices of each dataset (default: %(default)s)")
    parser.add_argument("--patients", type=int, default=12, help="measured for the table (default: %(default)s)")
    add_output_argument(parser, "output/cohort")


def run(args: argparse.Namespace) -> None:
    """Run the experiment."""
    print(*sheets(args.cohort, args.output, args.slices), sep="\n")
    rows = marks_table(read_hidden_truth(args.cohort))
    table = tabulate(rows, ["", "this cohort", "DeepLesion"], tablefmt="github", disable_numparse=True)
    write_whole(args.output / "marks.md", f"{table}\n".encode())
    print(table)
    if args.patients:
        headers = ["organ", *(h for p in PHASES for h in (p, "published"))]
        table = tabulate(organ_table(SIZES["small"], args.patients), headers, tablefmt="github")
        write_whole(args.output / "organs.md", f"{table}\n".encode())
        print(table)
