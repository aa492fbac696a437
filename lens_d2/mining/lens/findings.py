"""What a strategy sees of a patient, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...structures.detections import VolumeDetections
from ...structures.known_boxes import KnownBoxes

ANNOTATION, UNCERTAIN = "annotation", "uncertain"


@dataclass(frozen=True)
class Finding:
    """One 3D lesion that a strategy has mined, or more slices of a known one.

    Attributes:
        volume: name of the sub-volume.
        lesion: id of the 3D lesion; that of the annotation where the finding continues it.
        slice_boxes: (k, 6) z, x1, y1, x2, y2, score, in the volume frame.
        status: of the ledger, see :data:`lens_d2.data.ledger.table.STATUSES`.
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
