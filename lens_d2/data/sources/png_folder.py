"""Folders of 16-bit PNG slices, as DeepLesion has them."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ...io.errors import DataError, private
from .source import SOURCE_REGISTRY, Source, distances

HU_OFFSET = 32768  # the pictures hold HU + 32768
GREY_16 = ("I;16", "I")  # Pillow's mode of a PNG of 16-bit grey pixels; before Pillow 10.3 the latter


@SOURCE_REGISTRY.register()
class PngFolder(Source):
    """``<NNN>.png`` files, each a slice of 16-bit grey pixels (HU + 32768) named by its number.

    Keys of the record:
        spacing: x, y, z mm; a negative z means that the slices run towards the feet.
        z_direction: +1 (to the head) or -1 (to the feet), which overrides that sign.
        first_slice, num_slices: numbers of the sub-volume's slices; the whole folder without them.
        missing_slices: indices, from 0 in the sub-volume, of slices known not to exist, each replaced by the
            nearest one that does. Any other missing slice is an error.

    The world's origin is the first voxel, for lack of a better one.
    """

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Whether a folder holds numbered pictures that are not previews beside DICOM slices of CT."""
        if not path.is_dir() or not numbered_pictures(path):
            return False
        others = [each for each in path.iterdir() if not is_picture(each) and each.is_file()]
        return not (others and _hold_ct(others))

    def files(self) -> list[Path]:
        """The files of the sub-volume's slices, each once."""
        return list(dict.fromkeys(self._slices))

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size, by the first slice, and affine, by the record."""
        slices = self._slices
        width, height = _size(slices[0])
        return (width, height, len(slices)), self._affine()

    def array(self) -> np.ndarray:
        """(k, j, i) int16 voxels in HU."""
        first, *others = self.files()
        pictures = {first: _read(first)}
        for file in others:
            pictures[file] = picture = _read(file)
            if picture.shape != pictures[first].shape:
                sizes = ["{1} x {0}".format(*p.shape) for p in (picture, pictures[first])]
                raise DataError(file, f"{sizes[0]} pixels, but {private(first.name)} has {sizes[1]}")
        return np.stack([pictures[file] for file in self._slices])

    def slice_files(self) -> list[Path]:
        """The file of every slice; one that replaces missing ones appears several times."""
        return self._slices

    def _affine(self) -> np.ndarray:
        spacing = self.record.get("spacing")
        if spacing is None or any(step is None for step in spacing):
            raise DataError(self.path, "PNG slices carry no spacing, and none (or a part) is given")
        direction = self.record.get("z_direction") or (-1 if spacing[2] < 0 else 1)
        return np.diag([*distances(self.path, spacing[:2]), direction * abs(spacing[2]), 1.0])

    @cached_property
    def _slices(self) -> list[Path]:
        """The file of every slice of the sub-volume."""
        present: dict[int, Path] = {}
        for file in numbered_pictures(self.path):
            other = present.setdefault(int(file.stem), file)
            if other != file:
                raise DataError(file, f"has the number of {private(other.name)}")
        if not present:
            raise DataError(self.path, "no PNG file is named by a slice number")
        first = self.record.get("first_slice", min(present))
        count = self.record.get("num_slices", max(present) - first + 1)
        known_missing = {first + index for index in self.record.get("missing_slices") or ()}
        wanted = range(first, first + count)
        existing = np.array([number for number in wanted if number in present])
        absent = [f"{number:03d}.png" for number in wanted if number not in present.keys() | known_missing]
        if absent or not len(existing):
            raise DataError(self.path, f"missing slices: {', '.join(absent) or 'all of them'}")
        return [present[existing[np.abs(existing - number).argmin()]] for number in wanted]


def _hold_ct(files: list[Path]) -> bool:
    from .dicom_file import Kind
    from .dicom_series import read_dicom_files

    return any(file.kind == Kind.CT for file in read_dicom_files(files))


def is_picture(file: Path) -> bool:
    """Whether a file is named as a PNG picture."""
    return file.suffix.lower() == ".png" and not file.name.startswith(".")


def numbered_pictures(folder: Path) -> list[Path]:
    """PNG files of a folder that are named by a number, as slices are, in the order of their names."""
    return sorted(file for file in map(Path, os.scandir(folder)) if is_picture(file) and file.stem.isdecimal())


def fault_of_picture(file: Path) -> DataError | None:
    """The reason why a picture is no slice, by its header; None if it is one."""
    try:
        _size(file)
    except DataError as fault:
        return fault
    return None


def _size(file: Path) -> tuple[int, int]:
    """Width and height by the header of a PNG; DataError unless it announces 16-bit grey pixels."""
    try:
        with Image.open(file, formats=("PNG",)) as picture:
            size, mode = picture.size, picture.mode
    except Exception as error:  # on damaged bytes, Pillow raises whatever it stumbles over
        reason = getattr(error, "strerror", None)
        fault = f"cannot be read: {reason}" if reason else "not a PNG picture, or damaged in its header"
        raise DataError(file, fault) from error
    if mode not in GREY_16:
        raise DataError(file, f"picture of mode {mode} where a 16-bit grey slice ({GREY_16[0]}) belongs")
    return size


def _read(file: Path) -> np.ndarray:
    """(H, W) int16 HU of a slice."""
    _size(file)
    content = np.frombuffer(file.read_bytes(), np.uint8)  # not imread, which a name that is not UTF-8 can end
    picture = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise DataError(file, "truncated or damaged picture")
    return (picture - np.uint16(HU_OFFSET)).view(np.int16)  # modulo 2^16, so without a wider copy
