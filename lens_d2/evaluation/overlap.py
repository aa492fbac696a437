"""Overlaps of inclusive boxes, row by row, in the order of operations of the released scripts.

Widths count pixels inclusively, x2 - x1 + 1, along z too. Whether a threshold is met exactly depends on the last
bit of these numbers, so products and sums keep the scripts' order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..structures.boxes import expand_ranges

LEAST_WIDTH = 1e-9  # below it, two boxes do not meet: x - 1 - x + 1 may leave some last bits
# Overlap of a detection with a lesion, from the intersection and the sizes of the detection and the lesion.
OVERLAPS = {
    "IOU": lambda inter, detection, lesion: inter / (detection + lesion - inter),
    "IOBB": lambda inter, detection, lesion: inter / detection,
    "IOGT": lambda inter, detection, lesion: inter / lesion,
    "IOBBGT": lambda inter, detection, lesion: np.maximum(inter / detection, inter / lesion),
}


def box_size(boxes: np.ndarray) -> np.ndarray:
    """(n,) pixels or voxels in boxes of shape (n, 4) or (n, 6), lower corners first."""
    d = boxes.shape[1] // 2
    size = boxes[:, d] - boxes[:, 0] + 1.0
    for axis in range(1, d):
        size = size * (boxes[:, d + axis] - boxes[:, axis] + 1.0)
    return size


class BoxColumns:
    """Boxes column by column, the fastest layout for comparing pairs.

    Attributes:
        low, high: (d, n) corners.
        size: (n,) pixels or voxels.
    """

    def __init__(self, boxes: np.ndarray):
        d = boxes.shape[1] // 2
        self.low, self.high = np.ascontiguousarray(boxes.T).reshape(2, d, -1)
        self.size = box_size(boxes)


def overlapping_pairs(
    detections: BoxColumns,
    lesions: BoxColumns,
    pairs: tuple[np.ndarray, np.ndarray],
    metric: str,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Select the pairs whose overlap is at least ``threshold``.

    Args:
        detections, lesions: boxes.
        pairs: (p,) detection and (p,) lesion. Pairs that lie apart along one axis are dropped before the next.
        metric: a key of :data:`OVERLAPS`.
        threshold: above 0.

    Returns:
        (q,) detection and (q,) lesion.
    """
    detection, lesion = pairs
    inter = np.ones(len(detection))
    for axis in range(len(detections.low)):
        width = np.minimum(detections.high[axis][detection], lesions.high[axis][lesion])
        width -= np.maximum(detections.low[axis][detection], lesions.low[axis][lesion])
        width += 1.0
        meet = np.flatnonzero(width > LEAST_WIDTH)
        detection, lesion, inter = detection[meet], lesion[meet], inter[meet] * width[meet]
    hit = OVERLAPS[metric](inter, detections.size[detection], lesions.size[lesion]) >= threshold
    return detection[hit], lesion[hit]


def overlap(detections: np.ndarray, lesions: np.ndarray, metric: str = "IOU") -> np.ndarray:
    """(n,) overlap of each detection with the lesion in the same row; 2D (n, 4) or 3D (n, 6) boxes."""
    d = detections.shape[1] // 2
    inter = np.ones(len(detections))
    for axis in range(d):
        low = np.maximum(detections[:, axis], lesions[:, axis])
        high = np.minimum(detections[:, d + axis], lesions[:, d + axis])
        width = high - low + 1.0
        inter = inter * np.where(width > LEAST_WIDTH, width, 0.0)
    return OVERLAPS[metric](inter, box_size(detections), box_size(lesions))


def chunked_pairs(
    start: np.ndarray, count: np.ndarray, pairs_per_chunk: int = 1 << 17
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """:func:`~lens_d2.structures.boxes.expand_ranges` in pieces that fit the processor's cache.

    Yields:
        the rows of the piece; (p,) row, counted from the first of the piece, and (p,) member of each pair.
    """
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(pairs_per_chunk, total, pairs_per_chunk))
    for low, high in zip(np.r_[0, cuts].tolist(), np.r_[cuts, len(count)].tolist(), strict=True):
        yield slice(low, high), *expand_ranges(start[low:high], count[low:high])


def volume_ranges(volume: np.ndarray, num_volumes: int) -> tuple[np.ndarray, np.ndarray]:
    """(num_volumes,) first row and (num_volumes,) number of rows of each volume; ``volume`` is ascending."""
    count = np.bincount(volume, minlength=num_volumes)
    return np.cumsum(count) - count, count
