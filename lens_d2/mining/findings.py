"""What a strategy sees of a patient, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..modeling.targets import STATUS_OF_RECORD, BoxStatus
from ..structures import VolumeDetections

ANNOTATION, UNCERTAIN = "annotation", "uncertain"


@dataclass(frozen=True)
class Finding:
    """One 3D lesion that a strategy has mined, or more slices of a known one.

    Attributes:
        volume: name of the sub-volume.
        lesion: id of the 3D lesion; that of the annotation where the finding continues it.
        slice_boxes: (k, 6) z, x1, y1, x2, y2, score, in the volume frame.
        status: of the ledger, see :data:`lens_d2.mining.ledger.STATUSES`.
        annotation: id of the annotation that it was found by.
        distance: between their embeddings.
    """

    volume: str
    lesion: str
    slice_boxes: np.ndarray
    status: str = ANNOTATION
    annotation: str | None = None
    distance: float = np.nan


@dataclass
class KnownBoxes:
    """The boxes known in one sub-volume: given ones, and those mined so far.

    Attributes:
        slices, boxes, status: (n,) int, (n, 4) XYXY in the volume frame, (n,) :class:`BoxStatus`.
        lesions: n ids.
    """

    slices: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    status: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lesions: list[str] = field(default_factory=list)

    @classmethod
    def of_record(cls, record: dict) -> KnownBoxes:
        """The boxes of a record's lesions."""
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
        """Add a lesion's (k, 5 or more) boxes z, x1, y1, x2, y2."""
        self.slices = np.append(self.slices, slice_boxes[:, 0].astype(np.int64))
        self.boxes = np.concatenate([self.boxes, slice_boxes[:, 1:5]])
        self.status = np.append(self.status, np.full(len(slice_boxes), int(status)))
        self.lesions += [lesion] * len(slice_boxes)

    def of_status(self, *status: BoxStatus) -> KnownBoxes:
        """Only the boxes with one of these statuses."""
        chosen = np.isin(self.status, status)
        lesions = [lesion for lesion, kept in zip(self.lesions, chosen, strict=True) if kept]
        return KnownBoxes(self.slices[chosen], self.boxes[chosen], self.status[chosen], lesions)

    def pairs(self, slice_boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pairs of (m, 5 or more) slice boxes z, x1, y1, x2, y2 with the known boxes on their slices.

        Returns:
            (p,) row of the slice box, (p,) row of the known one, (p,) their IoU.
        """
        order = np.argsort(self.slices, kind="stable")
        first, last = (np.searchsorted(self.slices[order], slice_boxes[:, 0], side) for side in ("left", "right"))
        count = last - first
        rows = np.repeat(np.arange(len(slice_boxes)), count)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        columns = order[np.repeat(first, count) + within]
        return rows, columns, paired_iou(slice_boxes[rows, 1:5], self.boxes[columns])

    def largest_overlap(self, slice_boxes: np.ndarray) -> np.ndarray:
        """(m,) IoU of each slice box with the known box on its slice that it overlaps most; 0 without any."""
        rows, _, iou = self.pairs(slice_boxes)
        largest = np.zeros(len(slice_boxes))
        np.maximum.at(largest, rows, iou)
        return largest


@dataclass
class PatientVolume:
    """One sub-volume of the patient that is being mined.

    Attributes:
        record: of the dataset, with the annotations that are given.
        detections: the proposals, "fused" and of every expert.
        known: boxes given and mined so far, by this strategy or the ones before it.
    """

    record: dict
    detections: dict[str, VolumeDetections]
    known: KnownBoxes

    @classmethod
    def start(cls, record: dict, detections: dict[str, VolumeDetections]) -> PatientVolume:
        return cls(record, detections, KnownBoxes.of_record(record))


# All sub-volumes of one patient that the dataset has.
Patient = list[PatientVolume]


def tracklet_overlaps(found: VolumeDetections, known: KnownBoxes) -> np.ndarray:
    """(detections, known boxes): each tracklet's "key-slice IoU" with each known box (Section V-A).

    It is the IoU of the box that the tracklet has on the slice of the known one; 0 where it has none there.
    """
    rows, columns, iou = known.pairs(found.slice_boxes)
    overlaps = np.zeros((len(found), len(known)))
    np.maximum.at(overlaps, (found.slice_detection[rows], columns), iou)
    return overlaps


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
