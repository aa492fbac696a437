"""What a reader of a CT format offers, the registry of readers, and what readers share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from detectron2.utils.registry import Registry

from lens_d2.errors import DataError

SOURCE_REGISTRY = Registry("VOLUME_SOURCE")
SOURCE_REGISTRY.__doc__ = "Subclasses of Source; of those that accept a path, the last registered reads it."

# What names a sub-volume in a dataset record, and what readers look at there.
SOURCE_KEYS = (
    "file_name",
    "volume",
    "spacing",
    "z_direction",
    "first_slice",
    "num_slices",
    "missing_slices",
    "affine",
    "series_uid",
    "fill_gaps",
)


class Source:
    """One sub-volume on disk, in the axis order (i, j, k) of its file, fastest first.

    Args:
        path: the file or folder.
        record: dataset record, for what the file does not say.

    Attributes:
        VERSION: of the way of reading; counts up when a class reads other voxels or another geometry from the same
            file, so that what was cached before is not used any more.
        warnings: what was found odd in the file while its header and voxels were read, a line each.
    """

    VERSION = 1

    def __init__(self, path: Path, record: Mapping):
        self.path = path
        self.record = record
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Adds a warning, unless it has been given already."""
        if text not in self.warnings:
            self.warnings.append(text)

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Whether an existing path looks like this format."""
        raise NotImplementedError

    def files(self) -> list[Path]:
        """The files whose change makes another volume."""
        raise NotImplementedError

    def stamps(self) -> list[tuple[str, int, int]]:
        """Name, size and time of modification of each of the files; DataError where one cannot be found."""
        return [(file.name, stat.st_size, stat.st_mtime_ns) for file, stat in map(_stat, self.files())]

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size (i, j, k) and the (4, 4) affine from voxel centre index to LPS mm, values unchecked."""
        raise NotImplementedError

    def array(self) -> np.ndarray:
        """(k, j, i) int16 voxels in HU."""
        raise NotImplementedError

    def slice_files(self) -> list[Path]:
        """The file of every slice along k; empty if slices have no files of their own."""
        return []


def _stat(file: Path) -> tuple[Path, os.stat_result]:
    try:
        return file, os.stat(file)
    except OSError as error:
        raise DataError(file, f"cannot be read: {error.strerror}") from error


def open_source(record: Mapping) -> Source:
    """The reader for ``record["file_name"]``.

    Raises:
        DataError: there is no such file, or no reader for it.
    """
    path = Path(record["file_name"])
    if not path.exists():
        raise DataError(path, "no such file or folder")
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(path, "the folder is empty")
    for _, source in reversed(list(SOURCE_REGISTRY)):
        if source.accepts(path):
            return source(path, record)
    raise DataError(path, "not a format that any volume reader knows")


def affine_of(spacing: np.ndarray, direction: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The (4, 4) affine of (3,) spacing, 9 direction cosines (the axes are the columns) and (3,) origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (3, 3)) * spacing
    affine[:3, 3] = origin
    return affine


def to_int16(path: Path, array: np.ndarray) -> np.ndarray:
    """Voxels of any real type, rounded and saturated to int16; DataError where some are not a number."""
    if array.dtype == np.int16:
        return array
    if np.isnan(array).any():
        raise DataError(path, f"{int(np.isnan(array).sum())} voxels are not a number (NaN)")
    limits = np.iinfo(np.int16)
    return np.rint(array.clip(limits.min, limits.max)).astype(np.int16)


@contextmanager
def sitk_errors(path: Path, fault: str) -> Iterator[None]:
    """Turns SimpleITK's many-line exceptions into a one-line DataError and keeps its warnings quiet."""
    warnings = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        detail = str(error).split("ERROR:")[-1].split("Reason:")[0]  # the "reason" is a stale errno
        detail = re.sub(r"[(]0x[0-9a-f]+[)]", "", detail.strip().splitlines()[-1])
        raise DataError(path, f"{fault} ({detail})") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warnings)
