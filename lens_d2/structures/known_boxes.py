"""Boxes already known in a sub-volume, and the overlaps of others with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .boxes import expand_ranges, paired_iou
from .detections import VolumeDetections
from .status import STATUS_OF_RECORD, BoxStatus


@dataclass
class KnownBoxes:
    """Boxes known in one sub-volume: given ones, and those mined so far.

    Attributes:
        slices: (n,) int.
        boxes: (n, 4) XYXY in the volume frame.
        status: (n,) :class:`BoxStatus`.
        lesions: n ids.
    """

    slices: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    status: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lesions: list[str] = field(default_factory=list)

    @classmethod
    def of_record(cls, record: dict) -> KnownBoxes:
        """Boxes of a record's lesions."""
        known = cls()
        for lesion in record["lesions"]:
            if lesion["boxes"]:
                known.add(
                    lesion["id"], np.asarray(lesion["boxes"], dtype=float), STATUS_OF_RECORD[lesion["status"]]
                )
        return known

    def __len__(self) -> int:
        return len(self.slices)

    def add(self, lesion: str, slice_boxes: np.ndarray, status: BoxStatus) -> None:
        """Add a lesion's (k, 5 or more) slice boxes z, x1, y1, x2, y2."""
        self.slices = np.append(self.slices, slice_boxes[:, 0].astype(np.int64))
        self.boxes = np.concatenate([self.boxes, slice_boxes[:, 1:5]])
        self.status = np.append(self.status, np.full(len(slice_boxes), int(status)))
        self.lesions += [lesion] * len(slice_boxes)

    def of_status(self, *status: BoxStatus) -> KnownBoxes:
        """The boxes that have one of these statuses."""
        chosen = np.isin(self.status, status)
        lesions = [lesion for lesion, kept in zip(self.lesions, chosen, strict=True) if kept]
        return KnownBoxes(self.slices[chosen], self.boxes[chosen], self.status[chosen], lesions)

    def pairs(self, slice_boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of (m, 5 or more) slice boxes z, x1, y1, x2, y2 with all known boxes on their slices.

        Returns:
            (p,) row of the slice box, (p,) row of the known one, (p,) their IoU.
        """
        order = np.argsort(self.slices, kind="stable")
        first, last = (np.searchsorted(self.slices[order], slice_boxes[:, 0], side) for side in ("left", "right"))
        rows, members = expand_ranges(first, last - first)
        columns = order[members]
        return rows, columns, paired_iou(slice_boxes[rows, 1:5], self.boxes[columns])

    def largest_overlap(self, slice_boxes: np.ndarray) -> np.ndarray:
        """(m,) highest IoU of each slice box with a known box on its slice; 0 without one."""
        rows, _, iou = self.pairs(slice_boxes)
        largest = np.zeros(len(slice_boxes))
        np.maximum.at(largest, rows, iou)
        return largest


def best_overlap(found: VolumeDetections, known: KnownBoxes) -> np.ndarray:
    """(detections,) highest IoU of each tracklet with a known box on the slice of both; 0 without one."""
    best = np.zeros(len(found))
    np.maximum.at(best, found.slice_detection, known.largest_overlap(found.slice_boxes))
    return best


def tracklet_overlaps(found: VolumeDetections, known: KnownBoxes) -> np.ndarray:
    """(detections, known boxes) "key-slice IoU" of each tracklet with each known box (LENS, Section V-A).

    It is the IoU of the tracklet's box on the slice of the known one; 0 without a box there.
    """
    rows, columns, iou = known.pairs(found.slice_boxes)
    overlaps = np.zeros((len(found), len(known)))
    np.maximum.at(overlaps, (found.slice_detection[rows], columns), iou)
    return overlaps
