"""Truth and predictions slice by slice in COCO's JSON, for pycocotools and for others' viewers.

Boxes are XYWH with pixel edges from 0, as COCO has them. Each image says with "annotated" whether its lesions
are all marked: in a set whose lesions have one mark each, only the slices that have marks are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..structures.boxes import PLANE, slices_of
from .files import slice_range
from .sets import BoxDetections, BoxTruth, Tracklets

CATEGORIES = [{"id": 1, "name": "lesion"}]
MATRIX = 512  # pixels a side, DeepLesion's; the annotation files do not tell


@dataclass(frozen=True)
class Slices:
    """2D boxes on slices. volume, z: (n,). boxes: (n, 4) inclusive, as in the file. scores: (n,) or None."""

    volume: np.ndarray
    z: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray | None = None


def spread(volume: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None) -> Slices:
    """3D boxes on each of their slices, at least on the one nearest to the middle."""
    row, z = slices_of(boxes)
    return Slices(volume[row], z, boxes[row][:, PLANE], None if scores is None else scores[row])


def truth_slices(truth: BoxTruth) -> Slices:
    return spread(truth.volume, truth.boxes)


def detection_slices(detections: BoxDetections | Tracklets) -> Slices:
    if isinstance(detections, BoxDetections):
        return spread(detections.volume, detections.boxes, detections.scores)
    volume = detections.volume[detections.slice_detection]
    z = np.round(detections.slice_z).astype(np.int64)
    return Slices(volume, z, detections.slice_boxes, detections.slice_scores)


def coco_json(truth: BoxTruth, detections, z_from_zero: bool, first_pixel: int) -> tuple[dict, list[dict]]:
    """COCO's dictionary of the truth and its list of results of the predictions.

    Args:
        truth, detections: as a protocol takes them.
        z_from_zero: whether z counts from 0 in the sub-volume; otherwise it is the number in the volume's name.
        first_pixel: the number of the file's first pixel, 0 or 1.
    """
    lesions, found = truth_slices(truth), detection_slices(detections)
    ids, images = _images(truth.volumes, lesions, found, z_from_zero)
    extent = max([MATRIX, *(int(np.ceil(part.boxes.max())) + 1 for part in (lesions, found) if len(part.z))])
    for image in images:
        image.update(height=extent, width=extent)
    return coco_truth(images, lesions, ids, first_pixel), coco_results(found, ids, first_pixel)


def coco_truth(images: list[dict], lesions: Slices, ids: dict, first_pixel: int = 0) -> dict:
    """COCO's dictionary. ids: {(volume, z): image id}; a box on another slice is left out."""
    annotations = [
        {"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for number, (_, image, box) in enumerate(_rows(lesions, ids, first_pixel), start=1)
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES}


def coco_results(found: Slices, ids: dict, first_pixel: int = 0) -> list[dict]:
    """COCO's list of results. ids: as in :func:`coco_truth`."""
    scores = np.zeros(0) if found.scores is None else found.scores
    return [
        {"image_id": image, "category_id": 1, "bbox": box, "score": float(scores[row])}
        for row, image, box in _rows(found, ids, first_pixel)
    ]


def _images(volumes, lesions: Slices, found: Slices, z_from_zero: bool) -> tuple[dict, list[dict]]:
    """{(volume, z): image id} and the images, all slices of a volume whose name gives their range."""
    marked, present = _levels(lesions), _levels(lesions, found)
    ids: dict = {}
    images = []
    for number, name in enumerate(volumes):
        slices = slice_range(name)
        offset = slices[0] if slices and z_from_zero else 0
        named = range(slices[0] - offset, slices[1] - offset + 1) if slices else present.get(number, ())
        levels = sorted({*named, *marked.get(number, ())})
        folder = name[: name.rindex("_")] if slices else name
        for z in levels:
            ids[number, z] = len(images) + 1
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": f"{folder}/{z + offset:03d}.png",
                    "volume": name,
                    "slice": z,
                    "annotated": not z_from_zero or z in marked.get(number, ()),
                }
            )
    return ids, images


def _levels(*parts: Slices) -> dict[int, set]:
    """{volume: the slices that have a box}."""
    levels: dict = {}
    for part in parts:
        for volume, z in zip(part.volume.tolist(), part.z.tolist(), strict=True):
            levels.setdefault(volume, set()).add(z)
    return levels


def _rows(part: Slices, ids: dict, first_pixel: int) -> list[tuple[int, int, list[float]]]:
    """(row, image id, XYWH) of every box on a slice that has an image."""
    low = part.boxes[:, :2] - first_pixel
    size = part.boxes[:, 2:] - part.boxes[:, :2] + 1.0
    boxes = np.hstack([low, size]).tolist()
    images = [ids.get(key) for key in zip(part.volume.tolist(), part.z.tolist(), strict=True)]
    return [(row, image, boxes[row]) for row, image in enumerate(images) if image is not None]
