"""Mined annotations against the hidden truth of the synthetic cohort, which training and mining never open.

    python -m experiments mined output/phantom/lens_full/train/mining/ledger.parquet \\
        --dataset phantom_deeplesion_train --output output/mining_phantom.md

For each strategy, and for all of them together, it tells

- how many 2D boxes were mined, and their precision: a box is right where its IoU with a hidden lesion's box on
  that slice is at least ``--iou``;
- how many new 3D lesions, and their precision: one is right where it has a 3D IoBB of at least ``--iobb`` with a
  hidden lesion (the criterion of LENS, Section VI-C); and of those that are, the share that is the very lesion of
  the annotation it was matched with;
- how much of what was missing it recovered: hidden 2D boxes that are not annotated, and hidden lesions without an
  annotation in their sub-volume, that a right box or lesion is on; the latter also by size (longest side of the
  largest box), contrast and kind, as what is mined should be like what is missing, not like what is found first.

The lines of uncertain regions tell how many of them are lesions, and how many missing lesions they keep from being
learnt as background; those of hard negatives, how many of them are lesions all the same. Hidden lesions that are
cut off by the end of a sub-volume count as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from lens_d2.data.datasets import register_all
from lens_d2.data.datasets.catalog import root_of
from lens_d2.data.ledger.counts import strategies_of
from lens_d2.data.ledger.merge import RECORD_STATUS
from lens_d2.data.ledger.table import read_ledger, slice_boxes_of
from lens_d2.data.loader import load_records
from lens_d2.io.files import write_whole
from lens_d2.structures.boxes import hull, paired_iou, pairwise_iou, size_class, size_classes
from lens_d2.structures.status import STATUS_OF_RECORD, BoxStatus

from .runs import read_hidden_truth

# What a line's name has after the strategy's, for each status that is measured.
KINDS = {BoxStatus.LESION: "", BoxStatus.UNCERTAIN: " (uncertain)", BoxStatus.HARD_NEGATIVE: " (hard negatives)"}
TOTAL = "all annotations"
SIZES = (12.0, 16.0, 24.0, 32.0, 48.0)  # borders of the size classes, mm
SIDES = (0.0, *SIZES)  # a side in each class
HEADER = (
    "mined by", "2D boxes", "right", "3D lesions", "right", "the matched one", "missing 2D recovered",
    "missing 3D recovered",
)  # fmt: skip


@dataclass
class Tally:
    """The findings of one strategy.

    Attributes:
        boxes: (n,) whether each 2D box is right.
        lesions: (m,) whether each new 3D lesion is right.
        matched: of those found by an annotation, and right, whether it is the annotation's lesion.
        found_boxes: hidden (volume, lesion, slice) that right boxes are on.
        found_lesions: hidden (volume, lesion) that right lesions are on.
    """

    boxes: list[bool] = field(default_factory=list)
    lesions: list[bool] = field(default_factory=list)
    matched: list[bool] = field(default_factory=list)
    found_boxes: set = field(default_factory=set)
    found_lesions: set = field(default_factory=set)

    def line(self, name: str, missing_boxes: set, missing_lesions: set) -> list[str]:
        """Cells of the strategy's line, in the order of ``HEADER``."""
        return [
            name,
            len(self.boxes),
            _share(self.boxes),
            len(self.lesions),
            _share(self.lesions),
            _share(self.matched),
            _of(self.found_boxes & missing_boxes, missing_boxes),
            _of(self.found_lesions & missing_lesions, missing_lesions),
        ]


class HiddenTruth:
    """The lesions of all sub-volumes of the cohort in a folder."""

    def __init__(self, root: Path):
        self.volumes = read_hidden_truth(root)

    def lesions(self, volume: str) -> list[dict]:
        """All lesions of a sub-volume."""
        return self.volumes[volume]["lesions"]

    def boxes(self, volume: str) -> tuple[np.ndarray, np.ndarray]:
        """(n, 5) z, x1, y1, x2, y2 of all slice boxes and (n,) the number of the lesion that each belongs to."""
        lesions = self.lesions(volume)
        boxes = np.array([box for x in lesions for box in x["boxes"]], dtype=float).reshape(-1, 5)
        return boxes, np.repeat(np.arange(len(lesions)), [len(x["boxes"]) for x in lesions])

    def size_class(self, volume: str, number: int) -> str:
        """The size class of a lesion, by :data:`SIZES`."""
        entry = self.volumes[volume]
        return size_class(np.array(entry["lesions"][number]["boxes"]), entry["spacing"], SIZES)

    def instance_at(self, volume: str, z: int, box: np.ndarray) -> int | None:
        """The lesion that a box lies on best, over all scans of the patient; None where it lies on none."""
        boxes, owner = self.boxes(volume)
        here = boxes[:, 0] == z
        if not here.any():
            return None
        iou = pairwise_iou(np.asarray(box, dtype=float)[None], boxes[here, 1:])[0]
        return self.lesions(volume)[owner[here][iou.argmax()]]["instance"] if iou.max() > 0 else None


def measure(
    ledger: pd.DataFrame, records: list[dict], truth: HiddenTruth, iou: float = 0.5, iobb: float = 0.3
) -> dict:
    """Tally by strategy, and what was missing.

    Args:
        ledger: as read_ledger gives it.
        records: of the dataset, with given annotations only.
        iou: least IoU of a right 2D box.
        iobb: least 3D IoBB of a right lesion.

    Returns:
        {"tallies": {name: Tally}, "missing_boxes": set, "missing_lesions": set}
    """
    annotations = {
        x["id"]: truth.instance_at(r["volume"], int(x["boxes"][0][0]), x["boxes"][0][1:5])
        for r in records
        for x in r["lesions"]
    }
    kinds = ledger["status"].map(RECORD_STATUS).map(STATUS_OF_RECORD)
    used = ledger.assign(kind=kinds)[kinds.isin(list(KINDS))]
    tallies = {}
    for kind, suffix in KINDS.items():
        tallies |= {name + suffix: Tally() for name in strategies_of(used[used["kind"] == kind])}
        if kind == BoxStatus.LESION:
            tallies[TOTAL] = Tally()
    groups = used.groupby(["volume", "lesion", "strategy", "kind"], sort=False)
    for (volume, lesion, strategy, kind), rows in groups:
        counted = [strategy + KINDS[kind], *([TOTAL] if kind == BoxStatus.LESION else [])]
        for name in counted:
            _add(tallies[name], truth, volume, lesion, rows, annotations, iou, iobb)
    missing = list(_missing(records, truth))
    return {
        "tallies": tallies,
        "missing_boxes": {box for boxes, _ in missing for box in boxes},
        "missing_lesions": {lesion for _, lesions in missing for lesion in lesions},
    }


def _add(tally: Tally, truth: HiddenTruth, volume, lesion, rows: pd.DataFrame, annotations, iou, iobb) -> None:
    """Judge the rows of one mined lesion."""
    mined = slice_boxes_of(rows)
    boxes, owner = truth.boxes(volume)
    first, second = np.nonzero(mined[:, :1] == boxes[:, 0])
    right = paired_iou(mined[first, 1:], boxes[second, 1:]) >= iou
    tally.boxes += np.isin(np.arange(len(mined)), first[right]).tolist()
    tally.found_boxes |= {(volume, int(owner[i]), int(boxes[i, 0])) for i in second[right]}
    if lesion in annotations:
        return  # more slices of a known lesion, no new one
    overlaps = [iobb_of(mined, np.array(x["box3d"])) for x in truth.lesions(volume)]
    on = [number for number, overlap in enumerate(overlaps) if overlap >= iobb]
    tally.lesions.append(bool(on))
    tally.found_lesions |= {(volume, number) for number in on}
    annotation = rows["annotation"].iloc[0]
    if on and annotation in annotations:
        instances = {truth.lesions(volume)[number]["instance"] for number in on}
        tally.matched.append(annotations[annotation] in instances)


def iobb_of(slice_boxes: np.ndarray, box3d: np.ndarray) -> float:
    """The part of the extent of (n, 5) slice boxes z, x1, y1, x2, y2 that lies in a 3D box (6,)."""
    extent = hull(slice_boxes)
    low, high = extent[:3], extent[3:] + [0, 0, 1]
    inside = np.minimum(high, box3d[3:] + [0, 0, 1]) - np.maximum(low, box3d[:3])
    return float(np.prod(np.clip(inside, 0, None)) / np.prod(high - low))


def _missing(records: list[dict], truth: HiddenTruth) -> Iterator[tuple[set, set]]:
    """Yield for each sub-volume the hidden boxes and the hidden lesions that no annotation is on."""
    for record in records:
        volume = record["volume"]
        marks = {(int(z), tuple(box)) for x in record["lesions"] for z, *box in x["boxes"]}
        given = {(truth.instance_at(volume, z, np.array(box)), z) for z, box in marks}
        annotated = {instance for instance, _ in given}
        boxes, lesions = set(), set()
        for number, lesion in enumerate(truth.lesions(volume)):
            slices = {int(box[0]) for box in lesion["boxes"]}
            boxes |= {(volume, number, z) for z in slices if (lesion["instance"], z) not in given}
            if lesion["instance"] not in annotated:
                lesions.add((volume, number))
        yield boxes, lesions


def table(measured: dict) -> str:
    """The measurement as a Markdown table."""
    lines = [
        tally.line(name, measured["missing_boxes"], measured["missing_lesions"])
        for name, tally in measured["tallies"].items()
    ]
    return tabulate(lines, HEADER, tablefmt="pipe")


def breakdown(measured: dict, truth: HiddenTruth) -> str:
    """A Markdown table of the missing lesions recovered by each strategy, by size, contrast and kind."""
    missing = measured["missing_lesions"]
    classes: dict[str, set] = {}
    for name, of_lesion in _classes(missing, truth).items():
        for lesion in sorted(missing):
            classes.setdefault(f"{name}: {of_lesion[lesion]}", set()).add(lesion)
    order = {f"size: {name}": place for place, name in enumerate(size_classes(np.array(SIDES), SIZES))}
    rows = [
        [name, len(own), *(_of(tally.found_lesions & own, own) for tally in measured["tallies"].values())]
        for name, own in sorted(classes.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
    ]
    return tabulate(rows, ["missing lesions", "number", *measured["tallies"]], tablefmt="pipe")


def _classes(missing: set, truth: HiddenTruth) -> dict[str, dict[tuple, str]]:
    """The size, contrast and kind of each missing lesion; contrasts in three classes of as many lesions."""
    lesions = {(volume, number): truth.lesions(volume)[number] for volume, number in missing}
    contrasts = [abs(lesion["contrast"]) for lesion in lesions.values()]
    low, high = np.quantile(contrasts, [1 / 3, 2 / 3]) if contrasts else (0.0, 0.0)
    names = [f"below {low:.0f} HU", f"{low:.0f}-{high:.0f} HU", f"{high:.0f} HU or more"]
    return {
        "size": {lesion: truth.size_class(*lesion) for lesion in lesions},
        "contrast": {
            lesion: f"{place + 1} of 3, {names[place]}"
            for lesion, place in zip(lesions, np.searchsorted([low, high], contrasts, side="right"), strict=True)
        },
        "kind": {key: lesion["type"] for key, lesion in lesions.items()},
    }


def _share(values: list[bool]) -> str:
    return f"{100 * np.mean(values):.1f}%" if values else ""


def _of(part: set, whole: set) -> str:
    return f"{len(part)} of {len(whole)} ({100 * len(part) / max(len(whole), 1):.1f}%)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("ledger", help=".parquet or .csv")
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=["phantom_deeplesion_train"],
        help="those that were mined; a table for each",
    )
    parser.add_argument("--root", help="folder of the datasets (default: DETECTRON2_DATASETS, or datasets)")
    parser.add_argument("--iou", type=float, default=0.5, help="of a right 2D box (default 0.5)")
    parser.add_argument("--iobb", type=float, default=0.3, help="of a right 3D lesion (default 0.3)")
    parser.add_argument("--output", type=Path, help="Markdown file to write the table to")


def report(
    ledger: str | Path, datasets: list[str], output: Path | None = None, iou: float = 0.5, iobb: float = 0.3
) -> None:
    """Print a table for each dataset, and write them to ``output`` if it is given."""
    records = {name: load_records((name,)) for name in datasets}
    rows = read_ledger(ledger, [record for own in records.values() for record in own])
    truth_of, tables = cache(HiddenTruth), []
    for name, own in records.items():
        mined = rows[rows["volume"].isin({record["volume"] for record in own})]
        measured = measure(mined, own, truth_of(root_of(name)), iou, iobb)
        both = f"{table(measured)}\n\n{breakdown(measured, truth_of(root_of(name)))}"
        tables.append(f"# What was mined in {name}, against the hidden truth\n\n{both}")
    text = "\n\n".join(tables)
    print(text)
    if output:
        rule = f"A 2D box is right at an IoU of {iou:g}, a 3D lesion at an IoBB of {iobb:g}."
        write_whole(output, f"{text}\n\n{rule} Written by `python -m experiments mined`.\n".encode())


def run(args: argparse.Namespace) -> None:
    """Run the experiment."""
    register_all(args.root)
    report(args.ledger, args.dataset, args.output, args.iou, args.iobb)
