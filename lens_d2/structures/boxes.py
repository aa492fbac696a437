"""Boxes on slices and around them.

2D boxes are XYXY in pixel edges, slice boxes ``z, x1, y1, x2, y2`` (more columns may follow), and 3D boxes
``x1, y1, z1, x2, y2, z2`` with the first and the last slice, both included. The published protocols count pixels
inclusively; their arithmetic is in :mod:`lens_d2.evaluation.overlap`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike

import numpy as np

from ..io.errors import DataError

PLANE = [0, 1, 3, 4]  # x1, y1, x2, y2 of a 3D box
MAX_SLICES = 1_000_000  # of a volume


def pairwise_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of (n, 4) and (m, 4) boxes; 0 where both are empty."""
    return _iou(boxes[:, None], others[None])


def paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) intersection over union of (n, 4) boxes with (n, 4) others, row by row; 0 where both are empty."""
    return _iou(boxes, others)


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=-1)
    area, other_area = (np.prod(each[..., 2:] - each[..., :2], axis=-1) for each in (boxes, others))
    union = area + other_area - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def match_best_first(overlap: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair rows with columns one to one, the largest overlap first, while it is above the threshold.

    Args:
        overlap: (n, m).
        threshold: pairs at or below it are not matched.

    Returns:
        Indices of the matched rows and of their columns.
    """
    rows, columns = np.nonzero(overlap > threshold)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    row_free, column_free = np.ones(overlap.shape[0], bool), np.ones(overlap.shape[1], bool)
    matched = []
    for i in order:
        if row_free[rows[i]] and column_free[columns[i]]:
            row_free[rows[i]] = column_free[columns[i]] = False
            matched.append(i)
    return rows[matched], columns[matched]


def hull(slice_boxes: np.ndarray) -> np.ndarray:
    """(6,) smallest 3D box around (k, 5 or more) slice boxes, k > 0."""
    low, high = slice_boxes.min(axis=0), slice_boxes.max(axis=0)
    return np.array([low[1], low[2], low[0], high[3], high[4], high[0]])


def flat_boxes3d(slices: Iterable[float], boxes: Iterable) -> np.ndarray:
    """(n, 6) 3D boxes, each one slice thick, of (n,) slices and (n, 4) boxes on them."""
    plane = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    z = np.asarray(slices, dtype=np.float64).reshape(-1, 1)
    return np.concatenate([plane[:, :2], z, plane[:, 2:], z], axis=1)


def slices_of(boxes3d: np.ndarray, source: str | PathLike = "boxes") -> tuple[np.ndarray, np.ndarray]:
    """Slices that (n, 6) 3D boxes cover: those whose centres lie between z1 and z2, or else the nearest one.

    Args:
        boxes3d: x1, y1, z1, x2, y2, z2.
        source: that they come from, for the error.

    Returns:
        (m,) row of the box and (m,) slice, ordered by row, then slice.

    Raises:
        DataError: a box goes beyond what any volume has.
    """
    endless = (np.abs(boxes3d[:, [2, 5]]) > MAX_SLICES).any(axis=1)
    if endless.any():
        first, last = boxes3d[endless][0, [2, 5]]
        raise DataError(source, f"a box on slices {first:g} to {last:g}: no volume has as many")
    first, last = np.ceil(boxes3d[:, 2]), np.floor(boxes3d[:, 5])
    nearest = np.floor((boxes3d[:, 2] + boxes3d[:, 5]) / 2 + 0.5)
    between = first > last
    first, last = np.where(between, nearest, first), np.where(between, nearest, last)
    return expand_ranges(first.astype(np.int64), (last - first).astype(np.int64) + 1)


def boxes_through(box3d: Sequence[float], num_slices: int) -> np.ndarray:
    """(k, 5) slice boxes of a 3D box: its outline on each slice of the sub-volume that it covers."""
    box = np.asarray(box3d, dtype=np.float64)
    z = slices_of(box[None])[1]
    if len(z) == 1 and box[2] <= num_slices - 0.5:  # up to half a slice beyond the last one, it is on that
        z = z.clip(max=num_slices - 1)
    z = z[(z >= 0) & (z < num_slices)]
    return np.column_stack([z, np.tile(box[PLANE], (len(z), 1))])


def key_slice_box(lesion: dict) -> np.ndarray:
    """(5,) slice box of a record's lesion on its key slice, or on the middle one of its slices without that."""
    boxes = np.array([box[:5] for box in lesion["boxes"]], dtype=np.float64)
    on_key = boxes[boxes[:, 0] == lesion["key_slice"]]
    return on_key[0] if len(on_key) else boxes[len(boxes) // 2]


def slice_box_sides(slice_boxes: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """(k,) longest side, in mm, of (k, 5 or more) slice boxes; ``spacing`` begins with x and y mm of a pixel."""
    return ((slice_boxes[:, 3:5] - slice_boxes[:, 1:3]) * np.asarray(spacing[:2])).max(axis=1)


def size_classes(sides: np.ndarray, edges: Sequence[float]) -> list[str]:
    """Names of the size classes of boxes, such as "16-24 mm".

    Args:
        sides: (n,) longest side, mm.
        edges: rising borders between the classes, mm.
    """
    names = [f"below {edges[0]:g} mm", *(f"{a:g}-{b:g} mm" for a, b in zip(edges, edges[1:], strict=False))]
    names.append(f"{edges[-1]:g} mm or more")
    return [names[i] for i in np.searchsorted(edges, sides, side="right")]


def size_class(slice_boxes: np.ndarray, spacing: Sequence[float], edges: Sequence[float]) -> str:
    """Name of the size class of a lesion by its largest box; arguments as of the two functions above."""
    return size_classes(slice_box_sides(slice_boxes, spacing).max(keepdims=True), edges)[0]


def rows_by_slice(slices: np.ndarray) -> dict[int, np.ndarray]:
    """{slice: its rows} of (n,) whole numbers, ascending."""
    order = np.argsort(slices, kind="stable")
    found, starts = np.unique(np.asarray(slices)[order], return_index=True)
    return dict(zip(found.astype(int).tolist(), np.split(order, starts[1:]), strict=False))


def stack_slice_boxes(
    slices: np.ndarray, boxes: np.ndarray, scores: np.ndarray, owner: np.ndarray, count: int
) -> np.ndarray:
    """3D boxes of tracklets (LENS, Section IV-C): x and y are the means of their slices' boxes, weighted by score.

    Without a score above 0 all slices of a tracklet weigh alike.

    Args:
        slices: (n,).
        boxes: (n, 4).
        scores: (n,).
        owner: (n,) tracklet that each box belongs to.
        count: number of tracklets, each with a box at least.

    Returns:
        (count, 6) x1, y1, z1, x2, y2, z2, z1 and z2 the first and the last slice.
    """
    weights = np.maximum(scores, 1e-12)
    total = np.bincount(owner, weights, minlength=count)
    mean = [np.bincount(owner, weights * boxes[:, i], minlength=count) / total for i in range(4)]
    first, last = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(first, owner, slices)
    np.maximum.at(last, owner, slices)
    return np.stack([mean[0], mean[1], first, mean[2], mean[3], last], axis=1).reshape(-1, 6)


def expand_ranges(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a row with the members of its range.

    Args:
        start: (n,) first member of each row's range.
        count: (n,) how many it has: ``start[i], start[i] + 1, ... start[i] + count[i] - 1``.

    Returns:
        (sum of count,) row and (sum of count,) member of each pair, ordered by row, then member.
    """
    row = np.repeat(np.arange(len(count)), count)
    before = np.cumsum(count) - count
    return row, np.arange(len(row)) + np.repeat(start - before, count)
