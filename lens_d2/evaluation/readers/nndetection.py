"""nnDetection's predictions: ``<case>_boxes.pkl``, and the JSON that ``nndet_boxes2nii`` makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from ...io.errors import DataError
from ...io.formats import load_content, parse_rows
from ...structures.geometry import VolumeGeometry, body_axes
from .foreign import BOX_READERS, BoxReader, VolumeBoxes, voxels_of
from .monai import read_scores

COLUMNS = tuple(f"the end {end} of axis {axis}" for axis, end in ((0, 1), (1, 1), (0, 2), (1, 2), (2, 1), (2, 2)))
LOW, HIGH = [4, 1, 0], [5, 3, 2]  # columns of i, j, k: the axes 0, 1 and 2 of the array are k, j and i
AXIAL = (0, 1, 2)
_UID = re.compile(r"\d+(_\d+){5,}")


@BOX_READERS.register()
class nndetection(BoxReader):
    """Boxes in the array of each case's scan, a file a case.

    - A box is ``(x1, y1, x2, y2, z1, z2)`` in nnDetection's words, which are the axes 0, 1, 0, 1, 2, 2 of
      SimpleITK's array: k, j, k, j, i, i of the scan's file. Ends count voxel centres and lie one voxel outside:
      an object on the voxels a to b has the ends a - 1 and b + 1.
    - The pickle has ``pred_boxes``, ``pred_scores``, ``restore`` (which must be true: boxes in the scan's own
      array) and the scan's size, spacing, origin and direction, from which the world is known.
    - The JSON has ``{"1": {"box": [...], "score": ..., "label": ...}, ...}``, without the scan's place. It has
      boxes above a threshold of scores alone, cut to whole numbers: prefer the pickle. Its slices count as axial
      unless the scan is there to say otherwise (:meth:`ForeignBoxes.locate`).
    - The volume's name is the case's. If it is a DICOM UID with ``_`` for each dot, as nnDetection names LUNA16's
      series, it gets its dots back. Labels are not told apart.
    """

    patterns = ("*_boxes.pkl", "*_boxes.json")

    def recognizes(self, data: bytes) -> bool:
        """The keys of either form."""
        return b"pred_boxes" in data or b'"box"' in data and b'"score"' in data

    def read(self, path: Path, split: str | None, images: str | PathLike | None) -> Iterator[VolumeBoxes]:
        """Read one case."""
        content = load_content(path)
        name = path.stem.removesuffix("_boxes")
        name = name.replace("_", ".") if _UID.fullmatch(name) else name
        if not isinstance(content, Mapping):
            raise DataError(path, "no predictions of nnDetection")
        if "pred_boxes" not in content:
            yield _from_json(path, name, list(content.values()))
            return
        if not np.array_equal(content.get("restore"), True):
            raise DataError(path, "boxes of the preprocessed scan: predict with restore=True")
        array = to_array(parse_rows(path, f"volume {name}, detection", content["pred_boxes"], COLUMNS))
        scores = read_scores(path, name, content.get("pred_scores"), len(array))
        axes, geometry = _place(path, content)
        voxels = voxels_of(array, axes)
        yield VolumeBoxes(name, scores, voxels, geometry.boxes3d_to_world(voxels))


def to_array(boxes: np.ndarray) -> np.ndarray:
    """(n, 6) lowest and highest outer face of the voxels along i, j, k of (n, 6) boxes of nnDetection.

    A box with less than a voxel between its ends has its middle as first and last voxel.
    """
    low, high = boxes[:, LOW] + 1, boxes[:, HIGH] - 1
    middle = (low + high) / 2
    return np.hstack([np.minimum(low, middle), np.maximum(high, middle) + 1])


def _from_json(path: Path, name: str, entries: list) -> VolumeBoxes:
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise DataError(path, "no predictions of nnDetection")
    boxes = parse_rows(path, f"volume {name}, detection", [entry.get("box") for entry in entries], COLUMNS)
    scores = read_scores(path, name, [entry.get("score") for entry in entries], len(boxes))
    array = to_array(boxes)
    return VolumeBoxes(name, scores, voxels_of(array, AXIAL), array=array)


def _place(path: Path, content: Mapping) -> tuple[np.ndarray, VolumeGeometry]:
    """Axes i, j, k of the scan that are x, y, z, and its geometry."""
    try:
        size = np.array(content["original_size_of_raw_data"]).tolist()[::-1]
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(content["itk_direction"], (3, 3)) * content["itk_spacing"]
        affine[:3, 3] = content["itk_origin"]
        with np.errstate(invalid="raise", divide="raise"):
            axes = body_axes(affine)
        return axes, VolumeGeometry(np.array(size)[axes], affine[:, [*axes, 3]])
    except (KeyError, IndexError, TypeError, ValueError, ArithmeticError) as error:
        raise DataError(path, f"no size, spacing, origin and direction of the scan ({error})") from None
