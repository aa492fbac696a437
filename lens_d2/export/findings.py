"""Findings for a radiologist: detections that are parts of one lesion, told as one.

The network detects slice by slice, and linking can leave one lesion in two 3D boxes: its upper and its lower part,
or a box within another one. Two detections count as parts of one lesion if

- on the slices that both cover or, where one begins on the slice after the other's last, on these two slices,
- at least half of the smaller box lies in the larger one (intersection over the smaller box, by which LENS's
  protocol matches boxes as well), and
- the larger box has at most four times the area of the smaller one: a small lesion inside a large box stays a
  finding of its own.

Detections are taken the best first. Each joins the best finding whose best detection it matches, so that a chain
of boxes along a vessel does not grow into one. Findings bear the number and the scores of their best detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..structures.detections import Detection
from ..structures.geometry import VolumeGeometry

MIN_OVERLAP = 0.5  # of the smaller box
MAX_RATIO = 4.0  # of the areas


@dataclass(frozen=True)
class Finding:
    """Detections of one lesion.

    Attributes:
        whole: their common extent, with the number and the scores of the best of them.
        members: their numbers, the best first.
    """

    whole: Detection
    members: tuple[int, ...]


def group_detections(detections: Sequence[Detection], geometry: VolumeGeometry) -> list[Finding]:
    """Group the detections of one scan to findings.

    Args:
        detections: the best first.
        geometry: of the scan.

    Returns:
        Findings, the best first; each detection is in one of them.
    """
    boxes = np.array([each.box for each in detections], dtype=np.float64).reshape(-1, 6)
    best: list[int] = []  # detection of each group, as places in the sequence
    groups: list[list[Detection]] = []
    for place, detection in enumerate(detections):
        near = _near(boxes[best], boxes[place])
        group = next((i for i in np.flatnonzero(near) if is_same_lesion(groups[i][0], detection)), None)
        if group is None:
            best.append(place)
            groups.append([detection])
        else:
            groups[group].append(detection)
    return [Finding(_whole(group, geometry), tuple(each.number for each in group)) for group in groups]


def is_same_lesion(first: Detection, second: Detection) -> bool:
    """Whether two detections count as parts of one lesion, by the rule above."""
    one, other = _by_slice(first), _by_slice(second)
    pairs = [(z, z) for z in one.keys() & other.keys()]
    if not pairs:
        pairs = [(a, b) for a, b in ((max(one), min(other)), (min(one), max(other))) if abs(a - b) == 1]
    if not pairs:
        return False
    a, b = np.array([one[z] for z, _ in pairs]), np.array([other[z] for _, z in pairs])
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = sides.clip(0).prod(axis=1).sum()
    small, large = sorted((each[:, 2:] - each[:, :2]).prod(axis=1).sum() for each in (a, b))
    return bool(common >= MIN_OVERLAP * small and large <= MAX_RATIO * small)


def _near(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(n,) mask of 3D boxes that overlap another one in x and y, and overlap or touch it in z."""
    low, high = np.maximum(boxes[:, :3], box[:3]), np.minimum(boxes[:, 3:], box[3:])
    return (high >= low - [0, 0, 1 + 1e-6]).all(axis=1)


def _by_slice(detection: Detection) -> dict[int, np.ndarray]:
    """{slice: (4,) XYXY_ABS}."""
    return {int(row[0]): row[1:5] for row in detection.slice_boxes}


def _whole(group: Sequence[Detection], geometry: VolumeGeometry) -> Detection:
    """The common extent of a group: on each slice the hull of its boxes."""
    best = group[0]
    if len(group) == 1:
        return best
    boxes = np.array([each.box for each in group])
    rows = np.concatenate([each.slice_boxes for each in group])
    slices = np.unique(rows[:, 0])
    hulls = np.array([_hull_on_slice(rows[rows[:, 0] == z]) for z in slices])
    box = np.r_[boxes[:, :3].min(axis=0), boxes[:, 3:].max(axis=0)]
    placed = Detection.at(box, geometry, number=best.number, score=best.score, slice_boxes=hulls)
    return replace(
        best, **{name: getattr(placed, name) for name in ("box", "world_box", "size_mm", "slice_boxes")}
    )


def _hull_on_slice(rows: np.ndarray) -> np.ndarray:
    """(6,) one slice box around those of a slice, with the highest score."""
    return np.r_[rows[0, 0], rows[:, 1:3].min(axis=0), rows[:, 3:5].max(axis=0), rows[:, 5].max()]
