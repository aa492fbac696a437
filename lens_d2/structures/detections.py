"""Detections of one sub-volume, in the form that linking, evaluation, mining and export share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .boxes import PLANE, slices_of
from .geometry import VolumeGeometry

FUSED = "fused"  # name of the detections that all experts' are fused to, beside those of each expert


def _empty(columns: int) -> np.ndarray:
    return np.zeros((0, columns), dtype=np.float64)


@dataclass
class VolumeDetections:
    """The 3D detections of one sub-volume, in the volume frame.

    3D boxes that are given without slice boxes have their outline, with their score, on each slice they cover.

    Attributes:
        boxes: (n, 6) x1, y1, z1, x2, y2, z2. x and y are pixel edges (pixel i spans [i, i + 1]); z1 and z2
            are the first and the last slice, counted from 0 in the sub-volume, both included.
        scores: (n,) in [0, 1], the highest of the slices' scores (LENS, Section IV-C).
        slice_boxes: (m, 6) z, x1, y1, x2, y2, score: the 2D boxes that the 3D ones are made of; the score is 0
            where linking has added a box to a slice on which nothing was detected.
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

    def __post_init__(self):
        if len(self.boxes) and not len(self.slice_boxes):
            self.slice_detection, z = slices_of(self.boxes)
            plane, scores = self.boxes[self.slice_detection][:, PLANE], self.scores[self.slice_detection]
            self.slice_boxes = np.column_stack([z, plane, scores])

    def __len__(self) -> int:
        return len(self.boxes)

    def boxes_of(self, detection: int) -> np.ndarray:
        """(k, 6) slice boxes of one detection, in their stored order."""
        return self.slice_boxes[self.slice_detection == detection]

    def select(self, chosen: np.ndarray) -> VolumeDetections:
        """Some of these detections.

        Args:
            chosen: (n,) bool, which.
        """
        kept = chosen[self.slice_detection]
        by_detection = {
            name: None if values is None else values[chosen]
            for name in ("boxes", "scores", "expert_scores", "fpr_scores")
            for values in [getattr(self, name)]
        }
        owner = (np.cumsum(chosen) - 1)[self.slice_detection[kept]]
        return replace(self, slice_boxes=self.slice_boxes[kept], slice_detection=owner, **by_detection)

    def detected(self) -> VolumeDetections:
        """These detections without the slice boxes that linking has added."""
        kept = self.slice_boxes[:, 5] > 0
        return replace(self, slice_boxes=self.slice_boxes[kept], slice_detection=self.slice_detection[kept])


def best_slice_boxes(found: VolumeDetections) -> np.ndarray:
    """(detections, 6) z, x1, y1, x2, y2, score of the slice box with the highest score of each tracklet."""
    order = np.lexsort((-found.slice_boxes[:, 5], found.slice_detection))
    _, first = np.unique(found.slice_detection[order], return_index=True)
    return found.slice_boxes[order[first]]


@dataclass(frozen=True)
class Detection:
    """One 3D detection and its place in the patient.

    Attributes:
        number: from 1, in order of the scores; the same in every output, and its value in the label map.
        score: in [0, 1].
        box: x1, y1, z1, x2, y2, z2 in the volume frame: x and y pixel edges, z1 and z2 the first and the last
            slice, counted from 0, both included.
        world_box: smallest x, y, z and largest x, y, z, LPS mm, at the outer faces of the voxels.
        size_mm: the box's sides along the x, y and z axes of the volume frame.
        slice_boxes: (k, 6) z, x1, y1, x2, y2, score of its slices, in order.
        expert_scores: by the expert's name; empty if unknown.
        fpr_score: score of false-positive reduction, or None without it.
        probability: share of detections with this score that were lesions on the validation patients; None for
            weights without calibration.
        false_positive_rate: of the operating points that the detection belongs to, the fewest false positives
            per sub-volume; None below all of them, or without any.
    """

    number: int
    score: float
    box: tuple[float, ...]
    world_box: tuple[float, ...]
    size_mm: tuple[float, ...]
    slice_boxes: np.ndarray
    expert_scores: Mapping[str, float] = field(default_factory=dict)
    fpr_score: float | None = None
    probability: float | None = None
    false_positive_rate: float | None = None

    @classmethod
    def at(cls, box: np.ndarray, geometry: VolumeGeometry, **values: Any) -> Detection:
        """A detection in a scan.

        Args:
            box: (6,) in the volume frame.
            geometry: of the scan.
            values: the attributes that do not follow from these.
        """
        box = np.asarray(box, dtype=np.float64)
        sides = (box[3:] - box[:3] + [0, 0, 1]) * geometry.spacing
        world_box = geometry.boxes3d_to_world(box[None])[0]
        return cls(
            box=tuple(box.tolist()), world_box=tuple(world_box.tolist()), size_mm=tuple(sides.tolist()), **values
        )

    @property
    def slices(self) -> list[int]:
        """The slices whose centres it covers, in order; the nearest one if it lies between two."""
        return slices_of(np.array([self.box]))[1].tolist()

    @property
    def key_slice(self) -> int:
        """The slice with the highest score, the middle one of several."""
        best = self.slice_boxes[:, 5] == self.slice_boxes[:, 5].max()
        candidates = self.slice_boxes[best, 0]
        return int(candidates[len(candidates) // 2])
