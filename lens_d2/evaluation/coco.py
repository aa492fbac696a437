"""Truth and predictions slice by slice in COCO's JSON, for pycocotools and other viewers.

Boxes are XYWH in pixel edges from 0, as COCO's. "annotated" of an image tells whether all its lesions are marked:
if each lesion has one mark, this holds for the slices that have marks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..io.formats import FileFrame, slice_range
from ..structures.boxes import PLANE, slices_of
from .sets import BoxDetections, BoxTruth, Tracklets

CATEGORIES = [{"id": 1, "name": "lesion"}]
MATRIX = 512  # pixels a side in DeepLesion; the annotation files do not tell


@dataclass(frozen=True)
class Slices:
    """2D boxes on slices.

    Attributes:
        volume, z: (n,).
        boxes: (n, 4) XYXY pixel edges.
        scores: (n,) or None.
        detection: (n,) detection that each box belongs to, or None.
    """

    volume: np.ndarray
    z: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray | None = None
    detection: np.ndarray | None = None


def truth_slices(truth: BoxTruth, frame: FileFrame) -> Slices:
    """The truth's boxes on each slice that they cover."""
    row, z = slices_of(truth.boxes, "--coco")
    return Slices(truth.volume[row], z, _edges(truth.boxes[row][:, PLANE], frame))


def detection_slices(detections: BoxDetections | Tracklets, frame: FileFrame) -> Slices:
    """The detections' boxes on each slice that they cover."""
    if isinstance(detections, BoxDetections):
        row, z = slices_of(detections.boxes, "--coco")
        boxes, scores = detections.boxes[row][:, PLANE], detections.scores[row]
    else:
        row, z = detections.slice_detection, np.round(detections.slice_z).astype(np.int64)
        boxes, scores = detections.slice_boxes, detections.slice_scores
    return Slices(detections.volume[row], z, _edges(boxes, frame), scores, row)


def _edges(boxes: np.ndarray, frame: FileFrame) -> np.ndarray:
    return frame.to_volume(boxes, first_slice=0)


def coco_json(truth: BoxTruth, detections: BoxDetections | Tracklets, frame: FileFrame) -> tuple[dict, list[dict]]:
    """COCO's dictionary of the truth and its list of results of the predictions.

    Args:
        truth, detections: as a protocol takes them.
        frame: of their numbers.
    """
    lesions, found = truth_slices(truth, frame), detection_slices(detections, frame)
    ids, images = _images(truth.volumes, lesions, found, frame)
    marks = set(zip(lesions.volume.tolist(), lesions.z.tolist(), strict=True))
    extent = max([MATRIX, *(int(np.ceil(part.boxes.max())) for part in (lesions, found) if len(part.z))])
    for key, image in zip(ids, images, strict=True):
        image.update(annotated=isinstance(detections, BoxDetections) or key in marks, height=extent, width=extent)
    return coco_truth(images, lesions, ids), coco_results(found, ids)


def coco_truth(images: list[dict], lesions: Slices, ids: dict) -> dict:
    """COCO's dictionary of the truth.

    Args:
        images: COCO's list of images.
        lesions: boxes; those on slices without an image are left out.
        ids: {(volume, z): image id}.
    """
    annotations = [
        {"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for number, (_, image, box) in enumerate(_rows(lesions, ids), start=1)
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES}


def coco_results(found: Slices, ids: dict) -> list[dict]:
    """COCO's list of results, in which the boxes of one detection have the same ``track_id``.

    Args:
        found: boxes; those on slices without an image are left out.
        ids: {(volume, z): image id}.
    """
    scores = np.zeros(0) if found.scores is None else found.scores
    tracks = [{}] * len(scores) if found.detection is None else [{"track_id": int(i)} for i in found.detection]
    return [
        {"image_id": image, "category_id": 1, "bbox": box, "score": float(scores[row]), **tracks[row]}
        for row, image, box in _rows(found, ids)
    ]


def _images(volumes, lesions: Slices, found: Slices, frame: FileFrame) -> tuple[dict, list[dict]]:
    """{(volume, z): image id} and the images: all slices in a volume's name, or those that have boxes."""
    marked, present = _slices_with_boxes(lesions), _slices_with_boxes(lesions, found)
    ids: dict = {}
    images = []
    for number, name in enumerate(volumes):
        slices = slice_range(name)
        offset = 0 if frame.numbered_slices or not slices else slices[0]
        named = range(slices[0] - offset, slices[1] - offset + 1) if slices else present.get(number, ())
        folder = name[: name.rindex("_")] if slices else name
        for z in sorted({*named, *marked.get(number, ())}):
            ids[number, z] = len(images) + 1
            file_name = f"{folder}/{z + offset:03d}.png"
            from_zero = z + offset - (slices[0] if slices else 0)
            images.append({"id": len(images) + 1, "file_name": file_name, "volume": name, "slice": from_zero})
    return ids, images


def _slices_with_boxes(*parts: Slices) -> dict[int, set]:
    slices: dict = {}
    for part in parts:
        for volume, z in zip(part.volume.tolist(), part.z.tolist(), strict=True):
            slices.setdefault(volume, set()).add(z)
    return slices


def _rows(part: Slices, ids: dict) -> list[tuple[int, int, list[float]]]:
    """(row, image id, XYWH) of every box on a slice that has an image."""
    boxes = np.hstack([part.boxes[:, :2], part.boxes[:, 2:] - part.boxes[:, :2]]).tolist()
    images = [ids.get(key) for key in zip(part.volume.tolist(), part.z.tolist(), strict=True)]
    return [(row, image, boxes[row]) for row, image in enumerate(images) if image is not None]
