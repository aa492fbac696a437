"""The layouts in which boxes of DeepLesion are released, and nothing else about them.

Every function speaks the program's coordinates (pixel edges, slices counted from 0 in the sub-volume); the
files' own are known here alone:

- Lesion-Harvester's ``Revised-*.pkl``: ``{"<sub-volume>.annot": {z: [[x1, y1, x2, y2, z, z], ...]}}``, and
  its ``3D-Box.pkl``: ``{sub-volume: [[x1, y1, x2, y2, z1, z2], ...]}``. x and y start at 1 and both ends are
  part of the box; z is counted from 0 in the sub-volume, in the second file with fractions. Its tracklets:
  ``{sub-volume: [[(z, [x1, y1, x2, y2, score]), ...], ...]}``, a list of slices for each lesion, in the same
  numbers.
- LENS's ``DeepLesion_manual_1K_test_release.pkl``: ``{"val" | "test": {sub-volume: float array (n, 6)}}`` of x1,
  y1, z1, x2, y2, z2. x and y start at 0 and both ends are part of the box; z is the number of the PNG file.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np

from .errors import DataError
from .files import write_whole
from .pickles import read_pickle

_VOLUME_NAME = re.compile(r"(\d{6}_\d{2,}_\d{2,})_(\d{3,})-(\d{3,})")
_FROM_ONE = np.array([-1.0, -1.0, 0.0, 0.0])  # inclusive, counted from 1 -> edges
_FROM_ZERO = np.array([0.0, 0.0, 1.0, 1.0])  # inclusive, counted from 0 -> edges
_PLANE = [0, 1, 3, 4]  # x1, y1, x2, y2 of x1, y1, z1, x2, y2, z2


class VolumeName(NamedTuple):
    """``000089_01_01_031-043``: the slices 31 to 43 of series ``000089_01_01``."""

    series: str
    first: int
    last: int

    @classmethod
    def parse(cls, name: str, source: str | PathLike) -> VolumeName:
        """Raises DataError, naming ``source``, where ``name`` is no such name."""
        match = _VOLUME_NAME.fullmatch(name) if isinstance(name, str) else None
        if not match or int(match[2]) > int(match[3]):
            raise DataError(source, f"{name!r} is not the name of a sub-volume")
        return cls(match[1], int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.series}_{self.first:03d}-{self.last:03d}"

    @property
    def num_slices(self) -> int:
        return self.last - self.first + 1


def read_revised(path: str | PathLike) -> dict[str, np.ndarray]:
    """``{sub-volume: (n, 5) z, x1, y1, x2, y2}`` of a ``Revised-*.pkl`` (key names with or without '.annot').

    Raises:
        DataError: the file is not in this layout; names the file and the entry.
    """
    volumes = {}
    for key, slices in _mapping(path, "the file", read_pickle(path)).items():
        name = str(key).removesuffix(".annot")
        VolumeName.parse(name, path)
        rows = [np.zeros((0, 6))]
        for z, boxes in _mapping(path, key, slices).items():
            found = _table(path, f"{key}, slice {z}", boxes)
            if not (found[:, 4:] == z).all():
                raise DataError(path, f"{key}, slice {z}: a box that says it is on another slice")
            rows.append(found)
        table = np.concatenate(rows)
        volumes[name] = np.column_stack([table[:, 4], table[:, :4] + _FROM_ONE])
    return volumes


def write_revised(path: str | PathLike, volumes: Mapping[str, np.ndarray], suffix: str = ".annot") -> None:
    """Write ``{sub-volume: (n, 5) z, x1, y1, x2, y2}`` as a ``Revised-*.pkl``; ``suffix`` ends the key names."""
    content = {}
    for name, table in volumes.items():
        slices = content.setdefault(f"{VolumeName.parse(name, path)}{suffix}", {})
        for z, *box in np.asarray(table, dtype=np.float64).reshape(-1, 5):
            slices.setdefault(int(z), []).append([*(np.array(box) - _FROM_ONE).tolist(), float(z), float(z)])
    write_whole(path, pickle.dumps(content, protocol=2))


def read_boxes3d(path: str | PathLike) -> dict[str, np.ndarray]:
    """``{sub-volume: (n, 6) x1, y1, z1, x2, y2, z2}`` of ``3D-Box.pkl``, z as fractional as in the file.

    Raises:
        DataError: the file is not in this layout; names the file and the entry.
    """
    volumes = {}
    for name, boxes in _mapping(path, "the file", read_pickle(path)).items():
        VolumeName.parse(name, path)
        table = _table(path, name, boxes)[:, [0, 1, 4, 2, 3, 5]]
        table[:, _PLANE] += _FROM_ONE
        volumes[name] = table
    return volumes


def write_boxes3d(path: str | PathLike, volumes: Mapping[str, np.ndarray]) -> None:
    """Write ``{sub-volume: (n, 6) x1, y1, z1, x2, y2, z2}`` in the layout of ``3D-Box.pkl``."""
    content = {}
    for name, table in volumes.items():
        table = np.array(table, dtype=np.float64).reshape(-1, 6)
        table[:, _PLANE] -= _FROM_ONE
        content[str(VolumeName.parse(name, path))] = table[:, [0, 1, 3, 4, 2, 5]].tolist()
    write_whole(path, pickle.dumps(content, protocol=2))


def read_tracklets(path: str | PathLike) -> dict[str, list[np.ndarray]]:
    """``{sub-volume: [(k, 6) z, x1, y1, x2, y2, score, ...]}`` of a file of tracklets, an array for each lesion.

    Raises:
        DataError: the file is not in this layout; names the file and the entry.
    """
    volumes = {}
    for name, tracklets in _mapping(path, "the file", read_pickle(path)).items():
        VolumeName.parse(name, path)
        if not isinstance(tracklets, list | tuple):
            raise DataError(path, f"{name}: a list of tracklets belongs here, not {type(tracklets).__name__}")
        volumes[name] = [_tracklet(path, f"{name}, tracklet {i}", boxes) for i, boxes in enumerate(tracklets)]
    return volumes


def _tracklet(path: str | PathLike, entry: str, boxes) -> np.ndarray:
    try:
        rows = [[z, *box] for z, box in boxes]
    except (TypeError, ValueError):
        raise DataError(path, f"{entry}: a list of (z, box with score) belongs here") from None
    table = _table(path, entry, rows)
    table[:, 1:5] += _FROM_ONE
    return table


def write_tracklets(path: str | PathLike, volumes: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write ``{sub-volume: [(k, 6) z, x1, y1, x2, y2, score, ...]}`` as :func:`read_tracklets` reads it."""
    content = {}
    for name, tracklets in volumes.items():
        content[str(VolumeName.parse(name, path))] = [
            [(int(z), [*(np.array(box) - _FROM_ONE).tolist(), score]) for z, *box, score in np.asarray(t).tolist()]
            for t in tracklets
        ]
    write_whole(path, pickle.dumps(content, protocol=2))


def read_lens_set(path: str | PathLike) -> dict[str, dict[str, np.ndarray]]:
    """``{"val" | "test": {sub-volume: (n, 6) x1, y1, z1, x2, y2, z2}}`` of LENS's 1,000 sub-volumes.

    Raises:
        DataError: the file is not in this layout; names the file and the entry.
    """
    parts = {}
    for part, volumes in _mapping(path, "the file", read_pickle(path)).items():
        parts[part] = {}
        for name, boxes in _mapping(path, part, volumes).items():
            table = _table(path, f"{part}, {name}", boxes)
            table[:, _PLANE] += _FROM_ZERO
            table[:, [2, 5]] -= VolumeName.parse(name, path).first
            parts[part][name] = table
    return parts


def write_lens_set(path: str | PathLike, parts: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write ``{part: {sub-volume: (n, 6) x1, y1, z1, x2, y2, z2}}`` in the layout of LENS's set."""
    content: dict[str, dict] = {}
    for part, volumes in parts.items():
        content[part] = {}
        for name, table in volumes.items():
            table = np.array(table, dtype=np.float64).reshape(-1, 6)
            table[:, _PLANE] -= _FROM_ZERO
            table[:, [2, 5]] += VolumeName.parse(name, path).first
            content[part][name] = table
    write_whole(path, pickle.dumps(content, protocol=3))


def _mapping(path: str | PathLike, entry, value) -> dict:
    if not isinstance(value, dict):
        raise DataError(path, f"{entry}: a dict belongs here, not {type(value).__name__}")
    return value


def _table(path: str | PathLike, entry: str, boxes) -> np.ndarray:
    """A fresh (n, 6) array of finite numbers."""
    try:
        table = np.array(boxes, dtype=np.float64)
        table = table.reshape(0, 6) if not table.size else table
    except (TypeError, ValueError):
        table = np.zeros(0)
    if table.ndim != 2 or table.shape[1] != 6:
        raise DataError(path, f"{entry}: a list of boxes of six numbers belongs here")
    if not np.isfinite(table).all():
        raise DataError(path, f"{entry}: a box with NaN or infinity")
    return table
