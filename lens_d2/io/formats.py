"""The layouts in which boxes of DeepLesion are released, and predictions written; no other module knows them.

:func:`read_volumes` opens a file and the ``parse_`` functions check its entries. They give the file's own numbers,
as the published protocols take them; a :class:`FileFrame` says how these count. The ``read_`` and ``write_``
functions speak the program's coordinates: pixel edges, slices counted from 0 in the sub-volume.

- Lesion-Harvester's ``Revised-*.pkl``: ``{"<sub-volume>.annot": {z: [[x1, y1, x2, y2, z, z], ...]}}``, its
  ``3D-Box.pkl``: ``{sub-volume: [[x1, y1, x2, y2, z1, z2], ...]}``, z with fractions, and its tracklets:
  ``{sub-volume: [[(z, [x1, y1, x2, y2, score]), ...], ...]}``. They count as :data:`HARVESTER`.
- LENS's ``DeepLesion_manual_1K_test_release.pkl``: ``{"val" | "test": {sub-volume: float array (n, 6)}}`` of x1,
  y1, z1, x2, y2, z2, and predictions with a score as the seventh number. They count as :data:`LENS`.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import DataError
from .files import read_bytes, refuse_packed, write_whole
from .pickles import load_pickle
from .tables import LARGEST, VOXEL_COLUMNS, number_fault

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
LARGEST_WHOLE = 10**18  # fits 64 bits
_VOLUME_NAME = re.compile(r"(\d{6}_\d{2,}_\d{2,})_(\d{3,})-(\d{3,})")
_SLICES = re.compile(r"_(\d+)-(\d+)$")
_PLANE = tuple(f"the coordinate {name}" for name in ("x1", "y1", "x2", "y2"))
_BOX3D = tuple(f"the coordinate {name}" for name in ("x1", "y1", "z1", "x2", "y2", "z2"))


@dataclass(frozen=True)
class FileFrame:
    """The numbers of a file of boxes; both ends of a box are part of it.

    Attributes:
        first_pixel: number of the first pixel of a row.
        numbered_slices: z is the source's slice number; otherwise it counts from 0 in the sub-volume, and 3D boxes
            are x1, y1, x2, y2, z1, z2.
    """

    first_pixel: int = 0
    numbered_slices: bool = True

    @property
    def order3d(self) -> list[int]:
        """The columns of x1, y1, z1, x2, y2, z2 in the order of the file."""
        return [0, 1, 2, 3, 4, 5] if self.numbered_slices else [0, 1, 3, 4, 2, 5]

    def z_offset(self, first_slice: int) -> int:
        """The file's number of a sub-volume's slice 0, which is the source's slice ``first_slice``."""
        return first_slice if self.numbered_slices else 0

    def to_file(self, boxes: np.ndarray, first_slice: int) -> np.ndarray:
        """As :meth:`numbers`, and every box is at least one pixel wide."""
        d = boxes.shape[1] // 2
        moved = self.numbers(boxes, first_slice)
        moved[:, d : d + 2] = np.maximum(moved[:, d : d + 2], moved[:, :2])
        return moved

    def numbers(self, boxes: np.ndarray, first_slice: int) -> np.ndarray:
        """Boxes of the volume frame in the file's numbers, as wide as they are.

        Args:
            boxes: (n, 4) x1, y1, x2, y2 or (n, 6) x1, y1, z1, x2, y2, z2.
            first_slice: the source's number of slice 0.
        """
        return self._moved(boxes, first_slice, 1)

    def to_volume(self, boxes: np.ndarray, first_slice: int) -> np.ndarray:
        """Boxes of a file in the volume frame; arguments as of :meth:`numbers`."""
        return self._moved(boxes, first_slice, -1)

    def _moved(self, boxes: np.ndarray, first_slice: int, sign: int) -> np.ndarray:
        depth = [self.z_offset(first_slice)] * (boxes.shape[1] == 6)
        low, high = [self.first_pixel] * 2, [self.first_pixel - 1] * 2  # an edge is a pixel beyond the last one
        return np.asarray(boxes, dtype=np.float64) + sign * np.array(
            [*low, *depth, *high, *depth], dtype=np.float64
        )

    def slice_boxes_to_file(self, rows: np.ndarray, first_slice: int) -> np.ndarray:
        """(n, 5 or more) slice boxes z, x1, y1, x2, y2 of the volume frame in the file's numbers."""
        rows = np.array(rows, dtype=np.float64)
        rows[:, 1:5] = self.to_file(rows[:, 1:5], first_slice)
        rows[:, 0] += self.z_offset(first_slice)
        return rows

    def slice_boxes_to_volume(self, rows: np.ndarray, first_slice: int) -> np.ndarray:
        """(n, 5 or more) slice boxes z, x1, y1, x2, y2 of a file in the volume frame."""
        rows = np.array(rows, dtype=np.float64)
        rows[:, 1:5] = self.to_volume(rows[:, 1:5], first_slice)
        rows[:, 0] -= self.z_offset(first_slice)
        return rows


LENS = FileFrame()
HARVESTER = FileFrame(first_pixel=1, numbered_slices=False)  # DL_info.csv's pixels start at 1 too


class VolumeName(NamedTuple):
    """``000089_01_01_031-043``: the slices 31 to 43 of series ``000089_01_01``."""

    series: str
    first: int
    last: int

    @classmethod
    def parse(cls, name: str, source: str | PathLike) -> VolumeName:
        """The parts of a name.

        Raises:
            DataError: ``name`` is none of a sub-volume; names ``source``.
        """
        match = _VOLUME_NAME.fullmatch(name) if isinstance(name, str) else None
        if not match or int(match[2]) > int(match[3]):
            raise DataError(source, f"{name!r} is not the name of a sub-volume")
        return cls(match[1], int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.series}_{self.first:03d}-{self.last:03d}"

    @property
    def num_slices(self) -> int:
        """Number of slices of the sub-volume."""
        return self.last - self.first + 1


def slice_range(name: str) -> tuple[int, int] | None:
    """First and last slice in the name of anyone's sub-volume, ``<series>_<first>-<last>``; None without them.

    In a name such as ``CT_2021-03`` the last number is below the first: these are no slices.
    """
    found = _SLICES.search(name)
    return (int(found[1]), int(found[2])) if found and int(found[1]) <= int(found[2]) else None


def read_volumes(path: str | PathLike, split: str | None = None, splits: str = "expected") -> dict:
    """The unchecked entries of a file by sub-volume.

    Args:
        path: a pickle, or JSON of the same shape: {volume: entry} or {"train"/"val"/"test": {volume: entry}}.
        split: the one to take if the file has splits.
        splits: "expected", "required" or "optional": whether a file without any is taken whole with a warning,
            refused, or taken whole, if ``split`` is given.

    Returns:
        {volume: entry}; a trailing ".annot" of a name is dropped.

    Raises:
        DataError: the file is missing, empty, damaged or unsafe, lacks the split, or has a volume twice.
    """
    content = load_content(path)
    volumes = _choose_split(path, content, split)
    if split and volumes is content and splits != "optional":
        if splits == "required":
            raise DataError(path, f"has no split {split!r}")
        logger.warning("%s has no splits such as %r; all of it is taken", path, split)
    entries: dict = {}
    for name, entry in volumes.items():
        if not isinstance(name, str):
            raise DataError(path, f"volume {name!r}: names are text, this one is {type(name).__name__}")
        plain = name.removesuffix(".annot")
        if plain in entries:
            raise DataError(path, f"volume {plain} appears twice (with and without .annot)")
        entries[plain] = entry
    return entries


def load_content(path: str | PathLike):
    """Read JSON, or a pickle of plain data; unchecked.

    Raises:
        DataError: the file is missing, empty, damaged or unsafe, or a JSON object has a key twice.
    """
    data = read_bytes(path)
    if Path(path).suffix.lower() == ".csv":
        raise DataError(path, f"a table of boxes has the columns {', '.join(VOXEL_COLUMNS)}, parted by commas")
    is_json = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") or Path(path).suffix.lower() == ".json"
    return _parse_json(data, path) if is_json else load_pickle(data, path)


def load_json(path: str | PathLike):
    """Read JSON; unchecked.

    Raises:
        DataError: the file is missing, empty or damaged, or an object has a key twice.
    """
    return _parse_json(read_bytes(path), path)


def _parse_json(data: bytes, path: str | PathLike):
    refuse_packed(path, data)
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except _Duplicate as error:
        raise DataError(path, f"the entry {error} appears twice") from None
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not readable as JSON ({error})") from None


class _Duplicate(Exception):
    pass


def _unique_keys(pairs: list) -> dict:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _Duplicate(counts.most_common(1)[0][0])
    return entries


def _choose_split(path: str | PathLike, content, split: str | None) -> Mapping:
    if not isinstance(content, Mapping):
        raise DataError(path, f"holds {_kind(content)} where a table of volumes belongs")
    splits = [key for key in content if key in SPLITS]
    if not splits:
        return content
    if len(splits) < len(content):
        raise DataError(path, f"holds volumes beside the splits {', '.join(splits)}")
    if split is None and len(splits) > 1:
        raise DataError(path, f"has the splits {', '.join(splits)}: choose one with --split")
    if split is not None and split not in splits:
        raise DataError(path, f"has no split {split!r}, only {', '.join(splits)}")
    volumes = content[split or splits[0]]
    if not isinstance(volumes, Mapping):
        raise DataError(path, f"split {split or splits[0]}: not a table of volumes")
    return volumes


def parse_boxes3d(path: str | PathLike, name: str, entry, frame: FileFrame = LENS) -> np.ndarray:
    """(n, 6) x1, y1, z1, x2, y2, z2 of the 3D boxes of sub-volume ``name``, which ``frame`` says the order of."""
    return parse_rows(path, f"volume {name}, lesion", entry, _BOX3D)[:, np.argsort(frame.order3d)]


def parse_detections(path: str | PathLike, name: str, entry) -> np.ndarray:
    """(n, 7) x1, y1, z1, x2, y2, z2, score of the predicted 3D boxes of sub-volume ``name``."""
    return parse_rows(path, f"volume {name}, detection", entry, (*_BOX3D, "the score"))


def parse_marks(path: str | PathLike, name: str, entry) -> np.ndarray:
    """(n, 5) z, x1, y1, x2, y2 of the boxes on single slices of sub-volume ``name``."""
    if not isinstance(entry, Mapping):
        if isinstance(entry, list | tuple) and not entry:
            return np.zeros((0, 5))
        raise DataError(path, f"volume {name}: a table of slices belongs here, not {_kind(entry)}")
    found = [np.zeros((0, 5))]
    for key, rows in entry.items():
        z = _slice_number(key)
        if z is None:
            raise DataError(path, f"volume {name}: {shown(key)} is not the number of a slice")
        where = f"volume {name}, slice {key}"
        rows = parse_rows(path, f"{where}, lesion", rows, (*_PLANE, "the slice", "the slice"), shorter=4)
        if not (rows[:, 4:] == z).all():
            raise DataError(path, f"{where}: a box that says it is on another slice")
        found.append(np.column_stack([np.full(len(rows), z), rows[:, :4]]))
    return np.concatenate(found)


def _slice_number(key) -> float | None:
    """A whole number, or its text; None for anything else."""
    try:
        z = float(key)
    except (TypeError, ValueError, OverflowError):
        return None
    is_plain = not _is_flag(key) and "_" not in str(key)  # float() takes "1_0" for 10
    return z if z.is_integer() and is_plain else None


def parse_tracklets(path: str | PathLike, name: str, entry) -> list[np.ndarray]:
    """The predictions for sub-volume ``name`` that consist of boxes on slices.

    Returns:
        for each detection its (k, 6) z, x1, y1, x2, y2, score; or the (7,) x1, y1, z1, x2, y2, z2, score of a 3D
        box that the file has in place of them.
    """
    if not isinstance(entry, list | tuple | np.ndarray):
        raise DataError(path, f"volume {name}: a list of detections belongs here, not {_kind(entry)}")
    return [_tracklet(path, f"volume {name}, detection", number, each) for number, each in enumerate(entry)]


def _tracklet(path: str | PathLike, where: str, number: int, detection) -> np.ndarray:
    if isinstance(detection, list | tuple | np.ndarray) and len(detection) and np.isscalar(detection[0]):
        return parse_rows(path, where, [detection], (*_BOX3D, "the score"), first=number)[0]
    try:
        rows = [(z, *box) for z, box in detection]
    except (TypeError, ValueError):
        rows = []
    if not rows or any(len(row) != 6 for row in rows):
        fault = "a list of slices [z, [x1, y1, x2, y2, score]] belongs here"
        raise DataError(path, f"{where} {number}: {fault}")
    return parse_rows(path, f"{where} {number}, box", rows, ("the slice", *_PLANE, "the score"))


def parse_rows(
    path: str | PathLike, where: str, rows, columns: Sequence[str], shorter: int | None = None, first: int = 0
) -> np.ndarray:
    """(n, c) finite float64 of a list of n rows of numbers, or of an array.

    Args:
        path: file of the rows, for errors.
        where: names the entry in an error, together with the row's number: "volume 000001_01_01_001-020, lesion".
        rows: the list.
        columns: what the c numbers are.
        shorter: a length that rows may have instead.
        first: number of the first row.

    Raises:
        DataError: a row has another length, or something that is not a finite number up to ``LARGEST``.
    """
    if not isinstance(rows, np.ndarray | list | tuple):
        raise DataError(path, f"{where}s: a list of boxes belongs here, not {_kind(rows)}")
    if len(rows) == 0:
        return np.zeros((0, len(columns)))
    try:
        table = np.asarray(rows)
    except (ValueError, OverflowError):
        table = np.zeros(0, dtype=object)
    if not isinstance(rows, np.ndarray) and any(_is_flag(x) for row in rows if _is_list(row) for x in row):
        table = np.zeros(0, dtype=object)  # NumPy takes them as 0 and 1
    lengths = (len(columns), shorter)
    if not (table.dtype.kind in "iuf" and table.ndim == 2 and table.shape[1] in lengths):
        raise DataError(path, f"{where}{_row_fault(rows, lengths, first)}")
    table = table.astype(np.float64)
    if not (np.abs(table) <= LARGEST).all():
        row, fault = _not_finite(table, columns)
        raise DataError(path, f"{where} {first + row}: {fault}")
    return table


def _row_fault(rows, lengths: tuple, first: int) -> str:
    for number, row in enumerate(rows, start=first):
        row = np.asarray(row, dtype=object)
        if row.ndim != 1 or len(row) not in lengths:
            return f" {number}: {lengths[0]} numbers belong here"
        for value in row:
            if _is_flag(value) or not isinstance(value, int | float | np.number):
                return f" {number}: {value!r} is not a number"
            if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
                return f" {number}: {shown(value)}, too large a number"
    return "s: rows of different lengths"


def _is_flag(value) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_list(row) -> bool:
    return isinstance(row, list | tuple)


def _not_finite(table: np.ndarray, columns: Sequence[str]) -> tuple[int, str]:
    row, column = np.argwhere(~(np.abs(table) <= LARGEST))[0]
    return int(row), f"{columns[column]} is {table[row, column]}, {number_fault(table[row, column])}"


def shown(value) -> str:
    """``repr``, but for integers of many digits."""
    is_long = isinstance(value, int) and abs(value) > LARGEST_WHOLE
    return "an integer of more than 18 digits" if is_long else repr(value)


def _kind(value) -> str:
    return f"a value of type {type(value).__name__}"


def marks_entry(rows: np.ndarray) -> dict[int, list[list[float]]]:
    """Entry for :func:`parse_marks` of (n, 5) z, x1, y1, x2, y2 in the file's numbers."""
    slices: dict[int, list[list[float]]] = {}
    for z, *box in np.asarray(rows, dtype=np.float64).reshape(-1, 5).tolist():
        slices.setdefault(int(z), []).append([*box, z, z])
    return slices


def tracklet_entry(rows: np.ndarray) -> list[tuple[int, list[float]]]:
    """One detection for :func:`parse_tracklets`, of (k, 6) z, x1, y1, x2, y2, score in the file's numbers."""
    return [(int(z), box) for z, *box in np.asarray(rows, dtype=np.float64).tolist()]


def read_revised(path: str | PathLike) -> dict[str, np.ndarray]:
    """``{sub-volume: (n, 5) z, x1, y1, x2, y2}`` of a ``Revised-*.pkl`` (key names with or without '.annot').

    Raises:
        DataError: the file is not in this layout; names the file and the entry.
    """
    return _in_volume_frame(path, read_volumes(path), parse_marks, HARVESTER.slice_boxes_to_volume)


def read_boxes3d(path: str | PathLike) -> dict[str, np.ndarray]:
    """``{sub-volume: (n, 6) x1, y1, z1, x2, y2, z2}`` of ``3D-Box.pkl``, z as fractional as in the file.

    Raises:
        DataError: the file is not in this layout; names the file and the entry.
    """

    def parse(path, name: str, entry) -> np.ndarray:
        return parse_boxes3d(path, name, entry, HARVESTER)

    return _in_volume_frame(path, read_volumes(path), parse, HARVESTER.to_volume)


def read_lens_set(path: str | PathLike, part: str) -> dict[str, np.ndarray]:
    """``{sub-volume: (n, 6) x1, y1, z1, x2, y2, z2}`` of a part of LENS's 1,000 sub-volumes.

    Args:
        path: the file.
        part: "val" or "test".

    Raises:
        DataError: the file is not in this layout, or has no such part; names the file and the entry.
    """
    return _in_volume_frame(path, read_volumes(path, part, "required"), parse_boxes3d, LENS.to_volume)


def read_tracklets(path: str | PathLike) -> dict[str, list[np.ndarray]]:
    """``{sub-volume: [(k, 6) z, x1, y1, x2, y2, score]}`` of a file of tracklets, an array for each lesion.

    Raises:
        DataError: the file is not in this layout, or has 3D boxes; names the file and the entry.
    """

    def parse(path, name: str, entry) -> list[np.ndarray]:
        tracklets = parse_tracklets(path, name, entry)
        if any(rows.ndim == 1 for rows in tracklets):
            raise DataError(path, f"volume {name}: a 3D box, where boxes on slices belong")
        return tracklets

    def convert(tracklets: list[np.ndarray], first_slice: int) -> list[np.ndarray]:
        return [HARVESTER.slice_boxes_to_volume(rows, first_slice) for rows in tracklets]

    return _in_volume_frame(path, read_volumes(path), parse, convert)


def _in_volume_frame(path: str | PathLike, entries: dict, parse: Callable, convert: Callable) -> dict:
    return {name: convert(parse(path, name, x), VolumeName.parse(name, path).first) for name, x in entries.items()}


def write_revised(path: str | PathLike, volumes: Mapping[str, np.ndarray]) -> None:
    """Write ``{sub-volume: (n, 5) z, x1, y1, x2, y2}`` as a ``Revised-*.pkl``."""

    def entry(rows, first_slice: int) -> dict:
        return marks_entry(HARVESTER.slice_boxes_to_file(np.reshape(rows, (-1, 5)), first_slice))

    _write(path, {f"{name}.annot": x for name, x in _entries(path, volumes, entry).items()}, 2)


def write_boxes3d(path: str | PathLike, volumes: Mapping[str, np.ndarray]) -> None:
    """Write ``{sub-volume: (n, 6) x1, y1, z1, x2, y2, z2}`` in the layout of ``3D-Box.pkl``."""

    def entry(boxes, first_slice: int) -> list:
        return HARVESTER.to_file(np.reshape(boxes, (-1, 6)), first_slice)[:, HARVESTER.order3d].tolist()

    _write(path, _entries(path, volumes, entry), 2)


def write_tracklets(path: str | PathLike, volumes: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write ``{sub-volume: [(k, 6) z, x1, y1, x2, y2, score]}`` as :func:`read_tracklets` reads it."""

    def entry(tracklets, first_slice: int) -> list:
        return [tracklet_entry(HARVESTER.slice_boxes_to_file(rows, first_slice)) for rows in tracklets]

    _write(path, _entries(path, volumes, entry), 2)


def write_lens_set(path: str | PathLike, parts: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write ``{part: {sub-volume: (n, 6) x1, y1, z1, x2, y2, z2}}`` in the layout of LENS's set."""

    def entry(boxes, first_slice: int) -> np.ndarray:
        return LENS.to_file(np.reshape(boxes, (-1, 6)), first_slice)

    _write(path, {part: _entries(path, volumes, entry) for part, volumes in parts.items()}, 3)


def _entries(path: str | PathLike, volumes: Mapping, entry: Callable) -> dict:
    return {name: entry(boxes, VolumeName.parse(name, path).first) for name, boxes in volumes.items()}


def _write(path: str | PathLike, content: dict, protocol: int) -> None:
    write_whole(path, pickle.dumps(content, protocol=protocol))
