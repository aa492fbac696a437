"""Pairing of boxes one to one where they overlap enough, such that the sum of the overlaps is largest.

Time and memory are linear in the number of boxes as long as each overlaps few others: only boxes whose left edges
lie near each other are compared, and only those that compete for a partner are put to the assignment problem.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ...structures.boxes import expand_ranges, paired_iou


def overlapping(
    boxes: np.ndarray,
    others: np.ndarray,
    gate: float,
    groups: np.ndarray | None = None,
    other_groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of a box with another of its group whose IoU is at least ``gate``.

    Args:
        boxes, others: (n, 4) and (m, 4) XYXY. gate: above 0.
        groups, other_groups: (n,) and (m,) whole numbers, the slices for instance; without them, all are one.

    Returns:
        (p,) row of the box, (p,) row of the other one, (p,) their IoU.
    """
    if not len(boxes) or not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    # With an IoU of g, the intersection is as wide as g times either box, so that the left edges are no further
    # apart than this:
    width = boxes[:, 2] - boxes[:, 0]
    left, right = width * (1 - gate) / gate, width * (1 - gate)
    place, other_place = boxes[:, 0], others[:, 0]
    if groups is not None:
        low = min(place.min(), other_place.min())
        apart = max(place.max(), other_place.max()) - low + left.max() + right.max() + 1.0
        place, other_place = place - low + groups * apart, other_place - low + other_groups * apart
    order = np.argsort(other_place, kind="stable")
    sorted_place = other_place[order]
    slack = 1e-9 * (1.0 + np.abs(place))
    start = np.searchsorted(sorted_place, place - left - slack)
    stop = np.searchsorted(sorted_place, place + right + slack, side="right")
    rows, members = expand_ranges(start, stop - start)
    columns = order[members]
    iou = paired_iou(boxes[rows], others[columns])
    keep = iou >= gate
    return rows[keep], columns[keep], iou[keep]


def assign(rows: np.ndarray, columns: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """(k,) those of the (p,) pairs that are chosen: each row and each column once, the largest sum of overlaps."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    _, row = np.unique(rows, return_inverse=True)
    _, column = np.unique(columns, return_inverse=True)
    alone = (np.bincount(row)[row] == 1) & (np.bincount(column)[column] == 1)
    rivals = np.flatnonzero(~alone)
    if not len(rivals):
        return np.arange(len(rows))
    nodes = row.max() + 1 + column.max() + 1
    links = coo_array((np.ones(len(rivals)), (row[rivals], row.max() + 1 + column[rivals])), shape=(nodes, nodes))
    _, label = connected_components(links, directed=False)
    order = rivals[np.argsort(label[row[rivals]], kind="stable")]
    cuts = np.flatnonzero(np.diff(label[row[order]])) + 1
    chosen = [np.flatnonzero(alone)]
    chosen += [
        family[_assign_family(row[family], column[family], overlap[family])] for family in np.split(order, cuts)
    ]
    return np.sort(np.concatenate(chosen))


def _assign_family(row: np.ndarray, column: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """As :func:`assign`, by the Hungarian method on the whole matrix."""
    _, row = np.unique(row, return_inverse=True)
    _, column = np.unique(column, return_inverse=True)
    pair = np.full((row.max() + 1, column.max() + 1), -1)
    pair[row, column] = np.arange(len(row))
    gain = np.zeros(pair.shape)
    gain[row, column] = overlap
    chosen = pair[linear_sum_assignment(gain, maximize=True)]
    return chosen[chosen >= 0]
