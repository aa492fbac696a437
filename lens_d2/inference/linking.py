"""Linking of 2D boxes on slices to tracklets and 3D boxes.

Boxes are XYXY pixel edges; slices are consecutive integers.
"""

from __future__ import annotations

import numpy as np

from ..structures.boxes import pairwise_iou


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


def link_slices(slices: np.ndarray, boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Group the boxes of one volume into tracklets (LENS, Sections IV-C and V-A).

    Two boxes on neighbouring slices belong together if their IoU is above the threshold; a box has at most
    one such neighbour above and one below, the pair of largest IoU going first.

    Args:
        slices: (n,) integer slice of each box.
        boxes: (n, 4).
        threshold: of the IoU.

    Returns:
        (n,) number of each box's tracklet, from 0 in order of the first slice.
    """
    slices = np.asarray(slices)
    tracklet = np.full(len(slices), -1, dtype=np.int64)
    order = np.argsort(slices, kind="stable")
    numbers, starts = np.unique(slices[order], return_index=True)
    groups = np.split(order, starts[1:])
    count, last_number, previous = 0, -2, None
    for number, group in zip(numbers, groups, strict=True) if len(slices) else ():
        if previous is not None and number == last_number + 1:
            below, above = match_best_first(pairwise_iou(boxes[previous], boxes[group]), threshold)
            tracklet[group[above]] = tracklet[previous[below]]
        new = group[tracklet[group] < 0]
        tracklet[new] = count + np.arange(len(new))
        count += len(new)
        last_number, previous = number, group
    return tracklet


def stack_tracklets(
    slices: np.ndarray, boxes: np.ndarray, scores: np.ndarray, tracklet: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """3D boxes of tracklets (LENS, Section IV-C).

    x and y are the mean of the slices' boxes weighted by their scores, z reaches from the first to the last
    slice, and the score is the highest of the slices'.

    Args:
        slices: (n,).
        boxes: (n, 4).
        scores: (n,).
        tracklet: (n,), as :func:`link_slices` gives it.

    Returns:
        (t, 6) x1, y1, z1, x2, y2, z2 (first and last slice, inclusive) and (t,) scores.
    """
    count = int(tracklet.max()) + 1 if len(tracklet) else 0
    weights = np.maximum(scores, 1e-12)
    total = np.bincount(tracklet, weights, minlength=count)
    mean = [np.bincount(tracklet, weights * boxes[:, i], minlength=count) / total for i in range(4)]
    first, last = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(first, tracklet, slices)
    np.maximum.at(last, tracklet, slices)
    best = np.zeros(count)
    np.maximum.at(best, tracklet, scores)
    return np.stack([mean[0], mean[1], first, mean[2], mean[3], last], axis=1).reshape(-1, 6), best
