"""Pairs of marks of a patient that are of one lesion, or of two, as far as the annotations tell.

DeepLesion does not say which marks of a patient's scans are of the same lesion. But ``DL_info.csv`` gives the
place of every mark in the body (Normalized_lesion_location: its position in the right-left and front-back extent
of the body in its slice, and the height of the slice in the body, each from 0 to 1). In all scans of a patient,
the marks of a lesion lie close together there. Two marks of one series are of two lesions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog

from ..io.errors import DataError
from ..io.tables import read_rows
from ..structures.boxes import key_slice_box
from ..structures.records import given_lesions
from .lesion_labels import mark_row

# Typical difference between the places of marks of one lesion, along x, y and z.
PLACE_SPREAD = np.array([0.05, 0.05, 0.012])
# In units of the spread: nearer marks are of one lesion, farther ones of two; between them it is not known.
SAME_BELOW, DIFFERENT_ABOVE = 2.0, 5.0


class Mark(NamedTuple):
    """A mark of a record.

    Attributes:
        record: of its sub-volume.
        slice: its key slice.
        box: XYXY in the volume frame.
        place: (3,) in the body.
    """

    record: dict
    slice: int
    box: tuple[float, float, float, float]
    place: np.ndarray


class MarkPairs(NamedTuple):
    """Pairs of marks.

    Attributes:
        first, second: (p,) numbers of the marks.
        same: (p,) whether both are of one lesion; else they are of two.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def read_places(path: str | PathLike) -> dict[int, np.ndarray]:
    """Read the place of every row of ``DL_info.csv`` for which it is known: (3,), by row number from 0.

    Raises:
        DataError: the file is missing or is no such table, or a place is not three numbers.
    """
    places = {}
    for row, (line, cells) in enumerate(read_rows(path, ["File_name", "Normalized_lesion_location"])):
        try:
            place = np.array([float(part) for part in cells["Normalized_lesion_location"].split(",")])
        except ValueError:
            place = np.zeros(0)
        if len(place) != 3:
            raise DataError(path, f"line {line}: Normalized_lesion_location is not three numbers")
        if np.isfinite(place).all():
            places[row] = place
    return places


def marks_of_dataset(name: str, records: Sequence[dict]) -> list[Mark]:
    """The marks of a registered dataset's records whose place its ``mark_table`` tells, if it has one.

    Raises:
        DataError: the table cannot be read.
    """
    table = MetadataCatalog.get(name).get("mark_table")
    return collect_marks(records, read_places(table)) if table else []


def collect_marks(records: Sequence[dict], places: Mapping[int, np.ndarray]) -> list[Mark]:
    """All marks of DeepLesion records whose place is known."""
    return [
        Mark(record, int(box[0]), tuple(box[1:5].tolist()), places[row])
        for record in records
        for lesion in given_lesions(record)
        if (row := mark_row(lesion)) in places
        for box in [key_slice_box(lesion)]
    ]


def pair_marks(marks: Sequence[Mark]) -> MarkPairs:
    """Pair up the marks of each patient that are surely of one lesion, or surely of two.

    Marks are of one lesion if they are from two series, near, and each is the other's nearest in its series; of
    two if they are far apart or from one series.
    """
    of_patient: dict[str, list[int]] = {}
    for number, mark in enumerate(marks):
        of_patient.setdefault(mark.record["patient"], []).append(number)
    pairs = [_pair_patient(np.array(numbers), marks) for numbers in of_patient.values() if len(numbers) > 1]
    if not pairs:
        return MarkPairs(*np.zeros((2, 0), dtype=np.int64), np.zeros(0, dtype=bool))
    return MarkPairs(*(np.concatenate(part) for part in zip(*pairs, strict=True)))


def _pair_patient(numbers: np.ndarray, marks: Sequence[Mark]) -> MarkPairs:
    places = np.array([marks[i].place for i in numbers]) / PLACE_SPREAD
    series = np.array([marks[i].record["series"] for i in numbers])
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    within = series[:, None] == series
    # (n, n) distance from i to the nearest mark of j's series.
    nearest = np.array([[(distance[i, series == s]).min() for s in series] for i in range(len(numbers))])
    mutual = (distance <= nearest) & (distance <= nearest.T)
    same = ~within & mutual & (distance < SAME_BELOW)
    different = within | (distance > DIFFERENT_ABOVE)
    first, second = np.nonzero(np.triu(same | different, k=1))
    return MarkPairs(numbers[first], numbers[second], same[first, second])
