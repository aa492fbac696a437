"""Records and detections in the coordinates of the annotation files, in which the protocols compute."""

from __future__ import annotations

import numpy as np
from detectron2.data import MetadataCatalog

from ..io.errors import DataError
from ..io.formats import FileFrame
from ..structures.boxes import flat_boxes3d, key_slice_box
from ..structures.detections import VolumeDetections
from ..structures.records import given_lesions
from .sets import BoxTruth


def frame_of(dataset_name: str) -> FileFrame:
    """Coordinates of the files of a registered dataset, from its metadata."""
    return MetadataCatalog.get(dataset_name).get("file_frame", FileFrame())


def box_truth(records: list[dict], frame: FileFrame) -> BoxTruth:
    """The records' 3D boxes in the files' coordinates.

    Raises:
        DataError: a lesion has no 3D box.
    """
    boxes = []
    for record in records:
        own = [lesion["box3d"] for lesion in given_lesions(record)]
        if None in own:
            fault = "a lesion has no 3D box, by which its dataset is evaluated: in the reader give make_lesion a "
            raise DataError(record["volume"], fault + 'box3d, or Dataset the evaluator_type "p3d", of marks alone')
        boxes.append(frame.to_file(_rows(own), record["first_slice"]))
    return _truth(records, boxes)


def mark_truth(records: list[dict], frame: FileFrame) -> BoxTruth:
    """The records' boxes on key slices, in the files' coordinates; z1 = z2."""
    boxes = []
    for record in records:
        marks = np.array([key_slice_box(x) for x in given_lesions(record) if x["boxes"]]).reshape(-1, 5)
        boxes.append(frame.to_file(flat_boxes3d(marks[:, 0], marks[:, 1:]), record["first_slice"]))
    return _truth(records, boxes)


def _rows(boxes: list) -> np.ndarray:
    return np.array(boxes, dtype=np.float64).reshape(-1, 6)


def _truth(records: list[dict], boxes: list[np.ndarray]) -> BoxTruth:
    volume = np.repeat(np.arange(len(records)), [len(b) for b in boxes])
    return BoxTruth([record["volume"] for record in records], volume, np.concatenate([_rows([]), *boxes]))


def slice_boxes(detections: VolumeDetections) -> tuple[np.ndarray, np.ndarray]:
    """The detections' boxes on slices, scored as the detections are now.

    If 3D detections have been given new scores, the scores of their slices follow in proportion.

    Returns:
        (m, 6) z, x1, y1, x2, y2, score in the volume frame, and (m,) ascending rows of the detections.
    """
    order = np.lexsort((detections.slice_boxes[:, 0], detections.slice_detection))
    boxes, owner = detections.slice_boxes[order].astype(np.float64), detections.slice_detection[order]
    best = np.zeros(len(detections))
    np.maximum.at(best, owner, boxes[:, 5])
    boxes[:, 5] *= np.divide(detections.scores, best, out=np.ones(len(best)), where=best > 0)[owner]
    return boxes, owner
