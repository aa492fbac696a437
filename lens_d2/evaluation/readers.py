"""The three protocols' files as flat arrays (see ``sets.py``), refused with one line where they are unsound."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..io.errors import DataError
from ..structures.boxes import PLANE
from .files import (
    check_entries,
    match_volumes,
    number_rows,
    read_bytes,
    read_table,
    read_volumes,
    slice_range,
    warn_of_empty,
)
from .sets import BoxDetections, BoxTruth, Candidates, NoduleTruth, Tracklets, row_in_volume

OUTSIDE = 0.5  # a lesion may stick out of its sub-volume by half a slice: boxes of the released 3D set do


def read_lesion_boxes(path, split: str | None = None, box_order: str = "xyzxyz") -> BoxTruth:
    """3D truth: {volume: [[x1, y1, z1, x2, y2, z2], ...]}, z as in the volume's name (LENS's released set).

    Args:
        box_order: "xyzxyz" as above; "xyxyzz" for [x1, y1, x2, y2, z1, z2] with z from 0 in the sub-volume
            (Lesion-Harvester's 3D-Box.pkl).
    """
    entries = read_volumes(path, split)
    names = _names(path, entries)
    boxes = [number_rows(path, f"volume {name}, lesion", entry, (6,)) for name, entry in entries.items()]
    volume = np.repeat(np.arange(len(names)), [len(b) for b in boxes])
    boxes = np.concatenate(boxes)
    if box_order == "xyxyzz":
        boxes = boxes[:, [0, 1, 4, 2, 3, 5]]
    return _checked_truth(path, BoxTruth(names, volume, boxes), from_zero=box_order == "xyxyzz")


def read_marks(path, split: str | None = None) -> BoxTruth:
    """Truth on single slices: {volume: {z: [[x1, y1, x2, y2, z, z], ...]}}, z from 0 in the sub-volume."""
    entries = read_volumes(path, split)
    names = _names(path, entries)
    volume, boxes = [], []
    for number, (name, slices) in enumerate(entries.items()):
        if not isinstance(slices, Mapping):
            if isinstance(slices, list | tuple) and not slices:
                continue
            raise DataError(path, f"volume {name}: a table of slices belongs here, not a {_kind(slices)}")
        for key, rows in slices.items():
            z = _slice_number(path, name, key)
            rows = number_rows(path, f"volume {name}, slice {key}, lesion", rows, (6, 4))
            depth = np.full((len(rows), 1), z)
            boxes.append(np.hstack([rows[:, :2], depth, rows[:, 2:4], depth]))
            volume.append(np.full(len(rows), number))
    volume = np.concatenate([np.zeros(0, dtype=np.int64), *volume])
    boxes = np.concatenate([np.zeros((0, 6)), *boxes])
    return _checked_truth(path, BoxTruth(names, volume, boxes), from_zero=True)


def read_box_detections(path, truth: BoxTruth, of_truth="the ground truth", split=None) -> BoxDetections:
    """{volume: [[x1, y1, z1, x2, y2, z2, score], ...]}, in the truth's coordinates; rows in the truth's order."""
    entries = read_volumes(path, split, levels_expected=False)
    index = match_volumes(path, list(entries), truth.volumes, of_truth)
    rows = {
        number: number_rows(path, f"volume {name}, detection", entries[name], (7,))
        for name, number in sorted(index.items(), key=lambda item: item[1])
    }
    volume = np.repeat(
        np.fromiter(rows, dtype=np.int64), np.array([len(r) for r in rows.values()], dtype=np.int64)
    )
    boxes = np.concatenate([np.zeros((0, 7)), *rows.values()])
    check_entries(
        path, "detection", truth.volumes, volume, row_in_volume(volume), _box_faults(boxes[:, :6], boxes[:, 6])
    )
    warn_of_empty(path, truth.volumes, len(entries), volume)
    return BoxDetections(volume, boxes[:, :6], boxes[:, 6])


def read_tracklets(
    path, truth: BoxTruth, of_truth="the ground truth", split=None, foreign: bool = False
) -> Tracklets:
    """{volume: [[[z, [x1, y1, x2, y2, score]], ...], ...]}: a detection is its list of boxes, z from 0.

    A 3D box [x1, y1, z1, x2, y2, z2, score] stands for the same box on each slice from z1 to z2.

    Args:
        foreign: whether volumes that the truth does not have are passed over.
    """
    entries = read_volumes(path, split, levels_expected=False)
    if foreign:
        known = set(truth.volumes)
        entries = {name: entry for name, entry in entries.items() if name in known}
    index = match_volumes(path, list(entries), truth.volumes, of_truth)
    levels = truth.boxes[:, 2]
    span = (levels.min(), levels.max()) if len(levels) else (0, -1)
    volume, scores, owner, rows = [], [], [], []
    for name, entry in entries.items():
        if not isinstance(entry, list | tuple | np.ndarray):
            raise DataError(path, f"volume {name}: a list of detections belongs here, not a {_kind(entry)}")
        for number, detection in enumerate(entry):
            where = f"volume {name}, detection {number}"
            score, slices = _slice_boxes(path, where, detection, slice_range(name), span)
            owner.extend([len(volume)] * len(slices))
            rows.extend(slices)
            volume.append(index[name])
            scores.append(score)
    volume, owner = np.array(volume, dtype=np.int64), np.array(owner, dtype=np.int64)
    rows = np.array(rows, dtype=np.float64).reshape(-1, 6)
    faults = _box_faults(rows[:, 1:5], rows[:, 5])
    faults["the slice is not a finite number"] = ~np.isfinite(rows[:, 0])
    check_entries(path, "detection", truth.volumes, volume[owner], row_in_volume(volume)[owner], faults)
    warn_of_empty(path, truth.volumes, len(entries), volume)
    return Tracklets(volume, np.array(scores, dtype=np.float64), owner, rows[:, 0], rows[:, 1:5], rows[:, 5])


def read_marks_as_detections(path, truth: BoxTruth) -> Tracklets:
    """A set of annotations in the layout of :func:`read_marks` as detections of score 1, one a mark; volumes
    that the truth does not have are passed over."""
    marks = read_marks(path)
    index = {name: number for number, name in enumerate(truth.volumes)}
    where = np.array([index.get(name, -1) for name in marks.volumes])
    if (where < 0).all():
        raise DataError(path, "has no volume in common with the ground truth")
    volume = where[marks.volume]
    boxes, volume = marks.boxes[volume >= 0], volume[volume >= 0]
    ones, owner = np.ones(len(volume)), np.arange(len(volume))
    return Tracklets(volume, ones, owner, boxes[:, 2], boxes[:, PLANE], ones)


def read_nodules(path, seriesuids, excluded=None) -> NoduleTruth:
    """LUNA16's annotations (world millimetres), list of series, and excluded findings; a diameter below 0 means
    10 mm. Findings in series that are not listed are passed over, as the challenge's script does."""
    volumes = _read_seriesuids(seriesuids)
    nodules = _read_findings(path, volumes)
    none = (np.zeros(0, dtype=np.int64), np.zeros((0, 3)), np.zeros(0))
    return NoduleTruth(volumes, *nodules, *(_read_findings(excluded, volumes) if excluded else none))


def read_candidates(path, truth: NoduleTruth, of_truth="the list of series") -> Candidates:
    """CSV with seriesuid, coordX, coordY, coordZ, probability."""
    columns = ("coordX", "coordY", "coordZ", "probability")
    table = read_table(path, ("seriesuid",), columns)
    codes, names = table["seriesuid"].factorize()
    index = match_volumes(path, list(names), truth.volumes, of_truth)
    volume = np.array([index[name] for name in names], dtype=np.int64)[codes]
    numbers = table[list(columns)].to_numpy(dtype=np.float64)
    warn_of_empty(path, truth.volumes, len(names), volume)
    return Candidates(volume, numbers[:, :3], numbers[:, 3])


def _names(path, entries: dict) -> list[str]:
    if not entries:
        raise DataError(path, "holds no volume")
    return list(entries)


def _kind(value) -> str:
    return type(value).__name__


def _slice_number(path, name: str, key) -> float:
    try:
        return float(key)
    except (TypeError, ValueError):
        raise DataError(path, f"volume {name}: {key!r} is not the number of a slice") from None


def _box_faults(boxes: np.ndarray, scores: np.ndarray | None = None) -> dict:
    """What can be wrong with (n, 4) or (n, 6) boxes, as check_entries takes it."""
    d = boxes.shape[1] // 2
    faults = {} if scores is None else {"the score is not a finite number": ~np.isfinite(scores)}
    faults["a coordinate is not a finite number"] = ~np.isfinite(boxes).all(axis=1)
    for axis, letter in enumerate("xyz"[:d]):
        faults[f"{letter}1 > {letter}2"] = boxes[:, axis] > boxes[:, d + axis]
    return faults


def _checked_truth(path, truth: BoxTruth, from_zero: bool) -> BoxTruth:
    """The truth, after its boxes and their place in the slices of each volume's name."""
    bounds = np.full((len(truth.volumes), 2), [-np.inf, np.inf])
    for number, name in enumerate(truth.volumes):
        if (slices := slice_range(name)) is not None:
            bounds[number] = (0, slices[1] - slices[0]) if from_zero else slices
    low, high = bounds[truth.volume].T
    faults = _box_faults(truth.boxes)
    faults["more than half a slice outside the slices in the volume's name"] = (
        truth.boxes[:, 2] < low - OUTSIDE
    ) | (truth.boxes[:, 5] > high + OUTSIDE)
    check_entries(path, "lesion", truth.volumes, truth.volume, row_in_volume(truth.volume), faults)
    return truth


def _slice_boxes(path, where: str, detection, slices, span) -> tuple[float, list[tuple]]:
    """The score of one detection and its boxes (z, x1, y1, x2, y2, score)."""
    if not isinstance(detection, list | tuple | np.ndarray) or len(detection) == 0:
        raise DataError(path, f"{where}: a list of slices and boxes belongs here")
    if np.isscalar(detection[0]):
        box = number_rows(path, where, [detection], (7,))
        for fault, bad in _box_faults(box[:, :6], box[:, 6]).items():
            if bad.any():
                raise DataError(path, f"{where}: {fault}")
        return float(box[0, 6]), _spread(box[0], slices, span)
    rows = []
    for slice_box in detection:
        try:
            z, (x1, y1, x2, y2, score) = slice_box
            rows.append((float(z), float(x1), float(y1), float(x2), float(y2), float(score)))
        except (TypeError, ValueError):
            raise DataError(path, f"{where}: a slice is [z, [x1, y1, x2, y2, score]]") from None
    return max(row[5] for row in rows), rows


def _spread(box: np.ndarray, slices: tuple[int, int] | None, span) -> list[tuple]:
    """A 3D box on each slice from z1 to z2 that its volume has; ``span`` stands in for an unknown range."""
    x1, y1, z1, x2, y2, z2, score = box.tolist()
    first, last = (0, slices[1] - slices[0]) if slices else span
    levels = range(int(np.ceil(max(z1, first))), int(np.floor(min(z2, last))) + 1)
    return [(float(z), x1, y1, x2, y2, score) for z in levels]


def _read_seriesuids(path) -> list[str]:
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(path, "not a text file") from None
    names = [line.strip().rstrip(",") for line in lines if line.strip().rstrip(",")]
    names = names[1:] if names[:1] == ["seriesuid"] else names
    if not names:
        raise DataError(path, "holds no series")
    twice = [name for name, count in zip(*np.unique(names, return_counts=True), strict=True) if count > 1]
    if twice:
        raise DataError(path, f"volume {twice[0]}: it appears twice")
    return names


def _read_findings(path, volumes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = ("coordX", "coordY", "coordZ", "diameter_mm")
    table = read_table(path, ("seriesuid",), columns)
    volume = table["seriesuid"].map({name: number for number, name in enumerate(volumes)})
    table, volume = table[volume.notna()], volume.dropna().to_numpy(dtype=np.int64)
    order = np.argsort(volume, kind="stable")
    numbers = table[list(columns)].to_numpy(dtype=np.float64)[order]
    diameters = np.where(numbers[:, 3] < 0.0, 10.0, numbers[:, 3])
    return volume[order], numbers[:, :3], diameters
