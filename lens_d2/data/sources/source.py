"""The interface of a reader of a CT format, the registry of readers, and what they share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from detectron2.utils.registry import Registry

from ...io.errors import DataError, private

SOURCE_REGISTRY = Registry("VOLUME_SOURCE")
SOURCE_REGISTRY.__doc__ = "Subclasses of Source; of those that accept a path, the last registered reads it."

# Keys of a dataset record that name its sub-volume or tell readers how to read it.
SOURCE_KEYS = (
    "file_name", "volume", "spacing", "z_direction", "first_slice", "num_slices", "missing_slices", "affine",
    "series_uid", "fill_gaps",
)  # fmt: skip

# Cosine between two axes above which they are not orthogonal: 0.06 degrees, far beyond rounding.
SHEAR = 1e-3
UNIT_TOLERANCE = 0.01  # by which an axis may differ from a vector of length 1; headers have some six digits
MILLIMETRES = {
    "": 1.0, "mm": 1.0, "cm": 10.0, "m": 1e3, "um": 1e-3, "micron": 1e-3, "microns": 1e-3, "\u00b5m": 1e-3,
}  # fmt: skip


class Source:
    """One sub-volume on disk, in the axis order (i, j, k) of its file, fastest first.

    Attributes:
        VERSION: counts up when a class reads other voxels or another geometry from the same file, refuses it, or
            warns of it anew, so that older cache files are not used any more.
        warnings: oddities found while header and voxels were read, a line each.
        bytes_per_voxel: memory that reading takes: the int16 copy, and what else is held at the same time.
    """

    VERSION = 1
    bytes_per_voxel = 2

    def __init__(self, path: Path, record: Mapping):
        """
        Args:
            path: the file or folder.
            record: dataset record, for what the file does not say.
        """
        self.path = path
        self.record = record
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Add a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    @property
    def modality(self) -> str:
        """Modality as DICOM writes it ("CT", "MR"); empty if the header does not say."""
        return ""

    def check_axes(self, columns: np.ndarray) -> None:
        """Warn of axes that are not orthogonal, which many programs straighten without a word.

        Args:
            columns: (3, 3) directions of the axes i, j, k, of any length.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = columns / np.linalg.norm(columns, axis=0)
        slant = np.abs(cosines.T @ cosines - np.eye(3)).max()
        if slant > SHEAR:
            self.warn(
                f"its axes stand {np.degrees(np.arcsin(min(slant, 1.0))):.1f} degrees off the right angle: read "
                "so, as slices of a tilted gantry; other programs may straighten them"
            )

    def to_mm(self, affine: np.ndarray, unit: str) -> np.ndarray:
        """Convert an affine from the unit of the file to mm, with a warning unless that is mm."""
        scale = MILLIMETRES.get(unit.strip().lower())
        if scale is None:
            self.warn("its header gives lengths in no known unit: taken for mm")
        elif scale != 1:
            self.warn(f"its header gives lengths in {unit.strip()}: converted to mm")
        return np.diag([*[scale or 1.0] * 3, 1.0]) @ affine

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Whether an existing path looks like this format."""
        raise NotImplementedError

    def files(self) -> list[Path]:
        """The files that the volume is read from."""
        raise NotImplementedError

    def stamps(self) -> list[tuple[str, int, int]]:
        """Name, size and time of modification of each file; DataError if one is absent."""
        return list(map(stamp_of, self.files()))

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size (i, j, k) and the (4, 4) affine from voxel centre index to LPS mm, values unchecked."""
        raise NotImplementedError

    def array(self) -> np.ndarray:
        """(k, j, i) int16 voxels in HU."""
        raise NotImplementedError

    def slice_files(self) -> list[Path]:
        """The file of every slice along k; empty if slices have no files of their own."""
        return []


def stamp_of(file: Path) -> tuple[str, int, int]:
    """Name, size and time of modification of a file; DataError if it is absent."""
    try:
        stat = os.stat(file)
    except OSError as error:
        raise DataError(file, f"cannot be read: {error.strerror}") from error
    return file.name, stat.st_size, stat.st_mtime_ns


def open_source(record: Mapping) -> Source:
    """Open ``record["file_name"]`` by the reader of its format.

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


def distances(path: Path, spacing: Sequence[float]) -> np.ndarray:
    """Convert a spacing to an array of distances, which have no direction.

    Raises:
        DataError: a number is negative: programs differ in what they take it for, and sides would be swapped.
    """
    if any(step < 0 for step in spacing):
        numbers = " x ".join(f"{step:g}" for step in spacing)
        raise DataError(path, f"a spacing of {numbers} mm, which is negative: sides might be swapped")
    return np.array(spacing, dtype=np.float64)


def odd_lengths(directions: np.ndarray) -> str:
    """Lengths of the axes, the columns of (3, 3), as a text; empty if all are unit vectors."""
    lengths = np.linalg.norm(directions, axis=0)
    return "" if np.allclose(lengths, 1, rtol=UNIT_TOLERANCE) else ", ".join(f"{length:.3g}" for length in lengths)


def affine_of(path: Path, spacing: np.ndarray, direction: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(4, 4) affine of (3,) spacing, 9 direction cosines (the axes are the columns) and (3,) origin.

    Raises:
        DataError: the spacing is negative; it is told of ``path``.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (3, 3)) * distances(path, spacing)
    affine[:3, 3] = origin
    return affine


@contextmanager
def sitk_errors(path: Path, fault: str) -> Iterator[None]:
    """Turn SimpleITK's exceptions of many lines into a one-line DataError, and silence its warnings."""
    import SimpleITK as sitk

    warnings = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        raise DataError(path, f"{fault} ({private(itk_reason(str(error)))})") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warnings)


def itk_reason(text: str) -> str:
    """The line of an exception of SimpleITK that says what is wrong."""
    lines = text.split("ERROR:")[-1].split("Reason:")[0].strip().splitlines()  # the "reason" is a stale errno
    return re.sub(r"[(]0x[0-9a-f]+[)]", "", lines[-1] if lines else "no reason given")
