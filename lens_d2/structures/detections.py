"""Detections of one sub-volume, in the form that linking, evaluation, mining and export share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def _empty(columns: int) -> np.ndarray:
    return np.zeros((0, columns), dtype=np.float64)


@dataclass
class VolumeDetections:
    """The 3D detections of one sub-volume, in the frame of its file.

    Attributes:
        boxes: (n, 6) x1, y1, z1, x2, y2, z2. x and y are pixel edges (pixel i spans [i, i + 1]); z1 and z2
            are the first and the last slice, counted from 0 in the sub-volume, both included.
        scores: (n,) in [0, 1], the highest of the slices' scores (LENS, Section IV-C).
        slice_boxes: (m, 6) z, x1, y1, x2, y2, score: the 2D boxes that the 3D ones are made of.
        slice_detection: (m,) row of ``boxes`` that each slice box belongs to.
        expert_scores: (n, number of experts) each expert's own score for the detection, or None.
        fpr_scores: (n,) scores of false-positive reduction, or None if none ran.
    """

    boxes: np.ndarray = field(default_factory=lambda: _empty(6))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    slice_boxes: np.ndarray = field(default_factory=lambda: _empty(6))
    slice_detection: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    expert_scores: np.ndarray | None = None
    fpr_scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def boxes_of(self, detection: int) -> np.ndarray:
        """(k, 6) slice boxes of one detection, in their stored order."""
        return self.slice_boxes[self.slice_detection == detection]
