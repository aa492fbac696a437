"""COCO's JSON: a dataset as truth, a list of results as detections."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from ...io.errors import DataError
from ...io.formats import load_content, parse_rows, shown
from ...structures.boxes import MAX_SLICES, flat_boxes3d
from .foreign import BOX_READERS, BoxReader, VolumeBoxes

COLUMNS = ("the coordinate x", "the coordinate y", "the width", "the height")
_FILE_NAME = re.compile(r"(.+)/\D*(\d{1,6})(?:\.\w+)+")


@BOX_READERS.register()
class coco(BoxReader):
    """Boxes on slices as pycocotools reads them; each slice of a volume is an image.

    - An image says where it lies by ``"volume": name, "slice": number`` with slices from 0, or without both by a
      ``file_name`` such as ``<volume>/<number>.png``.
    - ``bbox`` is x, y, width, height in pixel edges from 0. Categories are not told apart.
    - Results are a list and name images by number, so that the dataset is needed with them; a dataset whose
      annotations all have a ``score`` serves, too.
    - Results of one volume with the same ``track_id`` are one detection. Without it each box is a detection of its
      own: boxes are never linked across slices here.
    """

    def recognizes(self, data: bytes) -> bool:
        """A list, or a dictionary with images and annotations."""
        return data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[" or b'"images"' in data and b'"annotations"' in data

    def read(self, path: Path, split: str | None, images: str | PathLike | None) -> Iterator[VolumeBoxes]:
        """Read a dataset or results; ``images`` is the dataset of results."""
        content = load_content(path)
        dataset = content
        if isinstance(content, list):
            if images is None:
                raise DataError(path, "results name images by number: name COCO's dataset by --images")
            dataset = load_content(images)
        places = _places(path if dataset is content else images, dataset)
        rows = content if dataset is not content else content.get("annotations")
        yield from _volumes(path, rows, places, is_result=dataset is not content)


def _places(path: str | PathLike | None, dataset) -> dict:
    """{image id: (volume, slice)} of a dataset."""
    images = dataset.get("images") if isinstance(dataset, Mapping) else None
    if not isinstance(images, list) or not all(_has_key(image, "id") for image in images):
        raise DataError(path, "no COCO dataset: it has no list of images with an id each")
    places = {image["id"]: _place(path, image) for image in images}
    if len(places) < len(images) or len(set(places.values())) < len(images):
        raise DataError(path, "an image, or a slice of a volume, appears twice")
    return places


def _place(path: str | PathLike | None, image: Mapping) -> tuple[str, int]:
    volume, number = image.get("volume"), image.get("slice")
    if volume is not None or number is not None:
        if isinstance(volume, str) and isinstance(number, int | float) and not isinstance(number, bool):
            if 0 <= number < MAX_SLICES and number % 1 == 0:
                return volume, int(number)
        found = f"image {image['id']}: volume and slice are {shown(volume)} and {shown(number)}"
        raise DataError(path, f"{found}: a name and a whole number from 0 belong there, or a file_name alone")
    named = _FILE_NAME.fullmatch(str(image.get("file_name")).replace("\\", "/"))
    if named is None:
        fault = "neither volume and slice nor a file_name such as <volume>/<number>.png"
        raise DataError(path, f"image {image['id']}: {fault}")
    return named[1], int(named[2])


def _volumes(path: Path, rows, places: dict, is_result: bool) -> Iterator[VolumeBoxes]:
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(path, "no list of annotations or results")
    with_score = ["score" in row for row in rows]
    if not is_result and any(with_score) and not all(with_score):
        fault = "has no score, and others have one: results have one each, a truth has none"
        raise DataError(path, f"row {with_score.index(False)}: {fault}")
    scored = is_result or any(with_score)
    members: dict[str, list[int]] = {volume: [] for volume, _ in places.values()}
    for number, row in enumerate(rows):
        if not _has_key(row, "image_id") or row["image_id"] not in places:
            raise DataError(path, f"row {number}: there is no image {row.get('image_id')!r}")
        if row.get("iscrowd"):
            raise DataError(path, f"row {number}: a crowd, and the protocols count single lesions")
        if "track_id" in row and not _has_key(row, "track_id"):
            raise DataError(path, f"row {number}: track_id is a number or text")
        members[places[row["image_id"]][0]].append(number)
    given = [[row.get("bbox"), row.get("score") if scored else 0] for row in rows]
    wide = [[*box, score] if isinstance(box, list) else [] for box, score in given]
    numbers = parse_rows(path, "row", wide, (*COLUMNS, "the score"))
    slices = np.array([places[row["image_id"]][1] for row in rows], dtype=np.float64)
    boxes = flat_boxes3d(slices, np.hstack([numbers[:, :2], numbers[:, :2] + numbers[:, 2:4]]))
    for volume, mine in members.items():
        tracks = [rows[i].get("track_id", f"row {i}") for i in mine]
        track = {key: index for index, key in enumerate(dict.fromkeys(tracks))}
        detection = np.array([track[key] for key in tracks], dtype=np.int64)
        yield VolumeBoxes(volume, numbers[mine, 4] if scored else None, voxels=boxes[mine], detection=detection)


def _has_key(row, name: str) -> bool:
    """Whether a row has a number or text that names something."""
    return isinstance(row, Mapping) and isinstance(row.get(name), int | str) and not isinstance(row[name], bool)
