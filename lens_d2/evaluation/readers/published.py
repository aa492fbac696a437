"""Files of the three protocols as flat arrays (see ``sets.py``), refused with one line if they are unsound."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import numpy as np

from ...io.errors import DataError
from ...io.files import read_bytes
from ...io.formats import (
    LENS,
    FileFrame,
    parse_boxes3d,
    parse_detections,
    parse_marks,
    parse_tracklets,
    read_volumes,
    slice_range,
)
from ...io.tables import read_table
from ...structures.boxes import PLANE, flat_boxes3d, slices_of
from ..sets import BoxDetections, BoxTruth, Candidates, NoduleTruth, Tracklets, row_in_volume

logger = logging.getLogger(__name__)

OUTSIDE = 0.5  # slices by which a lesion may stick out of its sub-volume, as boxes of the released 3D set do


def read_lesion_boxes(path, split: str | None = None, frame: FileFrame = LENS) -> BoxTruth:
    """3D truth in the layout and the numbers of LENS's set; of 3D-Box.pkl for the frame ``HARVESTER``."""
    entries = read_volumes(path, split)
    boxes = [parse_boxes3d(path, name, entry, frame) for name, entry in entries.items()]
    return _checked_truth(path, list(entries), boxes, from_zero=not frame.numbered_slices)


def read_marks(path, split: str | None = None) -> BoxTruth:
    """Truth on single slices in the layout and the numbers of Lesion-Harvester's released sets."""
    entries = read_volumes(path, split)
    marks = [parse_marks(path, name, entry) for name, entry in entries.items()]
    boxes = [flat_boxes3d(rows[:, 0], rows[:, 1:]) for rows in marks]
    return _checked_truth(path, list(entries), boxes, from_zero=True)


def read_box_detections(path, truth: BoxTruth, of_truth="the ground truth", split=None) -> BoxDetections:
    """3D boxes with scores, in the truth's coordinates; rows in the truth's order."""
    entries = read_volumes(path, split, "optional")
    index = match_volumes(path, list(entries), truth.volumes, of_truth)
    names = sorted(entries, key=lambda name: index[name])
    rows = [parse_detections(path, name, entries[name]) for name in names]
    volume = np.repeat(np.array([index[name] for name in names], dtype=np.int64), [len(r) for r in rows])
    boxes = np.concatenate([np.zeros((0, 7)), *rows])
    check_entries(path, "detection", truth.volumes, volume, row_in_volume(volume), box_faults(boxes[:, :6]))
    warn_of_boxes(path, truth, len(entries), volume, boxes)
    return BoxDetections(volume, boxes[:, :6], boxes[:, 6])


def warn_of_boxes(
    path, truth: BoxTruth, in_file: int, volume: np.ndarray, boxes: np.ndarray, kind: str = "detections"
) -> None:
    """Warn of volumes without predictions, and of predictions outside their volume's slices or listed twice.

    Args:
        path: of the predictions.
        truth: names the volumes.
        in_file: number of volumes in the file.
        volume: (n,) volume of each box.
        boxes: (n, 7) 3D boxes with their scores, in the numbers of the truth.
        kind: of the boxes, in words.
    """
    warn_of_empty(path, truth.volumes, in_file, volume)
    _warn_of_outside(path, truth, volume, boxes)
    warn_of_doubles(path, kind, truth.volumes, volume, boxes)


def warn_of_tracklets(path, truth: BoxTruth, in_file: int, tracklets: Tracklets) -> None:
    """Warn of detections on slices as :func:`warn_of_boxes` does."""
    boxes = np.column_stack([flat_boxes3d(tracklets.slice_z, tracklets.slice_boxes), tracklets.slice_scores])
    volume = tracklets.volume[tracklets.slice_detection]
    warn_of_boxes(path, truth, in_file, volume, boxes, "boxes on slices")


def _warn_of_outside(path, truth: BoxTruth, volume: np.ndarray, boxes: np.ndarray) -> None:
    """Warn of 3D boxes outside the slices in their volume's name, counted as those of the truth are."""
    named = [slice_range(name) or (-np.inf, np.inf) for name in truth.volumes]
    by_number = np.array(named)
    from_zero = by_number - np.where(np.isfinite(by_number[:, :1]), by_number[:, :1], 0)
    fits = [ranges for ranges in (by_number, from_zero) if not _outside(truth.boxes, ranges[truth.volume]).any()]
    if len(fits) == 1 and (outside := _outside(boxes, fits[0][volume])).any():
        told = "from 0" if fits[0] is from_zero else "as in the names"
        text = "%s: %d of %d detections lie outside the slices in their volumes' names, which the truth counts %s"
        logger.warning(text, path, outside.sum(), len(outside), told)


def _outside(boxes: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """(n,) whether (n, 6) boxes meet none of the slices from the first to the last of (n, 2)."""
    return (boxes[:, 5] < ranges[:, 0]) | (boxes[:, 2] > ranges[:, 1])


def read_tracklets(
    path, truth: BoxTruth, of_truth="the ground truth", split=None, foreign: bool = False
) -> Tracklets:
    """Detections that are lists of boxes on slices; a 3D box stands for the same box on each of its slices.

    Args:
        path: of the predictions.
        truth: names the volumes.
        of_truth: name of the truth in errors.
        split: part to take of a file that has splits.
        foreign: skip volumes that the truth does not have.
    """
    entries = read_volumes(path, split, "optional")
    if foreign:
        known = set(truth.volumes)
        entries = {name: entry for name, entry in entries.items() if name in known}
    index = match_volumes(path, list(entries), truth.volumes, of_truth)
    marked = truth.boxes[:, 2]
    span = (marked.min(), marked.max()) if len(marked) else (0, -1)
    volume, scores, parts = [], [], []
    for name, entry in entries.items():
        found = parse_tracklets(path, name, entry)
        whole = [number for number, rows in enumerate(found) if rows.ndim == 1]
        faults = box_faults(np.reshape([found[number][:6] for number in whole], (-1, 6)))
        check_entries(path, "detection", [name], np.zeros(len(whole), int), np.array(whole), faults)
        volume += [index[name]] * len(found)
        scores += [rows[..., -1].max() for rows in found]
        slices = slice_range(name)
        own = (0, slices[1] - slices[0]) if slices else span
        parts += [rows if rows.ndim == 2 else spread(rows, own) for rows in found]
    tracklets = Tracklets.of_rows(np.array(volume, dtype=np.int64), parts, scores)
    numbers = row_in_volume(tracklets.volume)[tracklets.slice_detection]
    of_slice = tracklets.volume[tracklets.slice_detection]
    check_entries(path, "detection", truth.volumes, of_slice, numbers, box_faults(tracklets.slice_boxes))
    if (tracklets.slice_z != np.rint(tracklets.slice_z)).any():
        logger.warning("%s: slices that are no whole numbers meet no mark", path)
    warn_of_tracklets(path, truth, len(entries), tracklets)
    return tracklets


def read_marks_as_detections(path, truth: BoxTruth) -> Tracklets:
    """Annotations in the layout of :func:`read_marks` as detections of score 1.

    Volumes that the truth does not have are skipped.
    """
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
    """LUNA16's annotations (world millimetres), list of series, and excluded findings.

    A diameter below 0 means 10 mm. Findings in unlisted series are skipped, as the challenge's script does.
    """
    volumes = _read_seriesuids(seriesuids)
    nodules = _read_findings(path, volumes)
    if not len(nodules[0]) and len(read_table(path)):
        raise DataError(path, f"holds no nodule in a series of {seriesuids}")
    check_entries(path, "nodule", volumes, nodules[0], row_in_volume(nodules[0]), diameter_faults(nodules[2]))
    warn_of_lesions(path, volumes, nodules[0], np.column_stack(nodules[1:]))
    none = (np.zeros(0, dtype=np.int64), np.zeros((0, 3)), np.zeros(0))
    others = _read_findings(excluded, volumes) if excluded else none
    if not re.search(r"\d", volumes[0]) and 0 not in (*nodules[0], *others[0]):
        text = "%s: the first line, %s, counts as a series: a header is seriesuid or left out"
        logger.warning(text, seriesuids, volumes[0])
    return NoduleTruth(volumes, *nodules, *others)


def read_candidates(path, truth: NoduleTruth, of_truth="the list of series") -> Candidates:
    """Candidates of a CSV file with seriesuid, coordX, coordY, coordZ, probability."""
    columns = ("coordX", "coordY", "coordZ", "probability")
    table = read_table(path, ("seriesuid",), columns)
    codes, names = table["seriesuid"].factorize()
    index = match_volumes(path, list(names), truth.volumes, of_truth)
    volume = np.array([index[name] for name in names], dtype=np.int64)[codes]
    numbers = table[list(columns)].to_numpy(dtype=np.float64)
    warn_of_empty(path, truth.volumes, len(names), volume)
    warn_of_doubles(path, "detections", truth.volumes, volume, numbers)
    return Candidates(volume, numbers[:, :3], numbers[:, 3])


def check_entries(path, kind: str, volumes, volume: np.ndarray, row: np.ndarray, faults: dict) -> None:
    """Raise the first fault of a table of boxes or points.

    Args:
        kind: "lesion" or "detection".
        volumes: names.
        volume: (n,) index of each row's volume.
        row: (n,) the row's number in its volume, as the file counts.
        faults: {what is wrong: (n,) bool}.
    """
    for fault, bad in faults.items():
        if bad.any():
            first = int(np.argmax(bad))
            raise DataError(path, f"volume {volumes[volume[first]]}, {kind} {row[first]}: {fault}")


def match_volumes(path, names, volumes: list[str], of_truth: str) -> dict[str, int]:
    """{name: index into ``volumes``} of a prediction file's volumes; empty if the detector found nothing.

    Raises:
        DataError: no volume in common, or one that the truth does not have.
    """
    index = {name: number for number, name in enumerate(volumes)}
    unknown = [name for name in names if name not in index]
    if names and len(unknown) == len(names):
        raise DataError(path, f"has no volume in common with {of_truth} (for example {unknown[0]})")
    if unknown:
        raise DataError(path, f"volume {unknown[0]}: {of_truth} does not have it")
    return {name: index[name] for name in names}


def warn_of_empty(path, volumes: list[str], in_file: int, volume: np.ndarray) -> None:
    """Warn of volumes without predictions.

    Args:
        path: of the predictions.
        volumes: names.
        in_file: number of volumes in the file.
        volume: (n,) volume of each detection.
    """
    empty = len(volumes) - len(np.unique(volume))
    if empty:
        logger.warning(
            "%s: %d of %d volumes have no predictions and count as empty (%d of them are not in the file)",
            path,
            empty,
            len(volumes),
            len(volumes) - in_file,
        )


def box_faults(boxes: np.ndarray) -> dict:
    """{fault: (n,) bool} of (n, 4) or (n, 6) boxes, as check_entries takes it."""
    d = boxes.shape[1] // 2
    return {f"{x}1 > {x}2": boxes[:, axis] > boxes[:, d + axis] for axis, x in enumerate("xyz"[:d])}


def _checked_truth(path, names: list[str], boxes: list[np.ndarray], from_zero: bool) -> BoxTruth:
    """Truth of the (n, 6) boxes of each volume, whose corners and slices are checked."""
    if not names:
        raise DataError(path, "holds no volume")
    truth = BoxTruth(names, np.repeat(np.arange(len(names)), [len(b) for b in boxes]), np.concatenate(boxes))
    bounds = np.full((len(names), 2), [-np.inf, np.inf])
    for number, name in enumerate(names):
        if (slices := slice_range(name)) is not None:
            bounds[number] = (0, slices[1] - slices[0]) if from_zero else slices
    low, high = bounds[truth.volume].T
    outside = (truth.boxes[:, 2] < low - OUTSIDE) | (truth.boxes[:, 5] > high + OUTSIDE)
    faults = box_faults(truth.boxes) | {"more than half a slice outside the slices in the volume's name": outside}
    check_entries(path, "lesion", names, truth.volume, row_in_volume(truth.volume), faults)
    warn_of_lesions(path, truth.volumes, truth.volume, truth.boxes)
    return truth


def warn_of_lesions(path, volumes: Sequence[str], volume: np.ndarray, lesions: np.ndarray) -> None:
    """Warn of a truth without a lesion, and of lesions that appear twice.

    Args:
        path: of the truth.
        volumes: names.
        volume: (n,) volume of each lesion.
        lesions: (n, k) their numbers.
    """
    if not len(volume):
        logger.warning("%s: holds no lesion: a sensitivity of 0 means nothing", path)
    warn_of_doubles(path, "lesions", volumes, volume, lesions)


def warn_of_doubles(path, kind: str, volumes: Sequence[str], volume: np.ndarray, rows: np.ndarray) -> None:
    """Warn of what stands in a file twice, as when two files were joined.

    Args:
        path: of the file.
        kind: of the rows, in words.
        volumes: names.
        volume: (n,) volume of each row.
        rows: (n, k) their numbers.
    """
    _, first, count = np.unique(np.column_stack([volume, rows]), axis=0, return_index=True, return_counts=True)
    if (count > 1).any():
        name, twice = volumes[volume[first[count > 1].min()]], (count - 1).sum()
        logger.warning("%s: %d %s appear twice and count twice (volume %s)", path, twice, kind, name)


def spread(box: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """(k, 6) slice boxes of a (7,) 3D box with its score: its outline on the slices that it covers.

    Args:
        box: x1, y1, z1, x2, y2, z2, score.
        span: first and last slice that count.
    """
    first, last = span
    if box[5] < first - 1 or box[2] > last + 1:
        return np.zeros((0, 6))
    near = np.array([[0, 0, max(box[2], first - 1), 0, 0, min(box[5], last + 1)]])  # a box may be endlessly long
    z = slices_of(near)[1]
    z = z[(z >= first) & (z <= last)]
    return np.column_stack([z, np.tile(box[[*PLANE, 6]], (len(z), 1))])


def diameter_faults(diameters: np.ndarray) -> dict:
    """{fault: (n,) bool} of nodules, as check_entries takes it."""
    return {"the diameter 0, which no point can hit; -1 stands for one that is not known": diameters == 0}


def known_diameters(diameters: np.ndarray) -> np.ndarray:
    """(n,) mm of nodules as the challenge's script takes them: 10 where they are below 0."""
    return np.where(diameters < 0, 10.0, diameters)


def _read_seriesuids(path) -> list[str]:
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(path, "not a text file") from None
    names = [line.strip().rstrip(",") for line in lines if line.strip().rstrip(",")]
    names = names[1:] if names and re.fullmatch("series_?(instance_?)?uid", names[0].casefold()) else names
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
    diameters = known_diameters(numbers[:, 3])
    return volume[order], numbers[:, :3], diameters
