"""Boxes on slices: overlap, and the slice boxes of 3D ones.

Boxes are XYXY pixel edges.
"""

from __future__ import annotations

import numpy as np

from .detections import VolumeDetections


def pairwise_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of (n, 4) and (m, 4) boxes; 0 where both are empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=2)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    other_area = np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = area[:, None] + other_area[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def best_slice_boxes(found: VolumeDetections) -> np.ndarray:
    """(detections, 6) z, x1, y1, x2, y2, score of the slice box with the highest score of each tracklet."""
    order = np.lexsort((-found.slice_boxes[:, 5], found.slice_detection))
    _, first = np.unique(found.slice_detection[order], return_index=True)
    return found.slice_boxes[order[first]]


def paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) intersection over union of (n, 4) XYXY boxes with (n, 4) others, row by row."""
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = [np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
