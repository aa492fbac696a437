"""MetaImage: a header of ``key = value`` lines, before the voxels (``.mha``) or apart from them (``.mhd``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...io.errors import DataError, private, quoted
from .source import SOURCE_REGISTRY, affine_of, odd_lengths
from .streams import inflated, numbers_in_text, stored
from .text_header import TextHeader, TextHeaderFile

TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
# The several names of one field, the first of which appears in errors.
SPACING = ("ElementSpacing", "ElementSize")
ORIGIN = ("Offset", "Position", "Origin")
DIRECTION = ("TransformMatrix", "Rotation", "Orientation")
BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
INTENSITY = {"ElementToIntensityFunctionSlope": 1.0, "ElementToIntensityFunctionOffset": 0.0}
LAST = "ElementDataFile"
_KEY = re.compile(r"[\w|][\w| .:-]*")


@SOURCE_REGISTRY.register()
class MetaImageFile(TextHeaderFile):
    """``.mha`` and ``.mhd``; warns of what the header does not say of the voxels' place."""

    SUFFIXES = (".mha", ".mhd")
    DIMENSION, SIZE = "NDims", "DimSize"
    MODALITY = ("Modality", "0008|0060")  # SimpleITK writes DICOM elements by their tags

    @property
    def modality(self) -> str:
        """Modality as DICOM writes it."""
        return super().modality.removeprefix("MET_MOD_")

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size and affine; DataError unless there are three dimensions and one value per voxel."""
        channels = self._numbers("ElementNumberOfChannels", 1, int, "1")[0]
        if channels != 1:
            raise DataError(self.path, f"{channels} values per voxel where CT has 1")
        return super().header()

    def _affine(self) -> np.ndarray:
        axes = self._num_axes
        spacing = np.array(self._numbers(SPACING, axes)[:3])
        if not any(key in self._fields for key in (*ORIGIN, *DIRECTION)):
            self.warn("its header gives neither position nor orientation: left and right may be swapped")
        elif not any(key in self._fields for key in ORIGIN):
            self.warn(f"its header gives no position ({ORIGIN[0]}): the first voxel is taken for the origin")
        elif not any(key in self._fields for key in DIRECTION):
            self.warn(f"its header gives no orientation ({DIRECTION[0]}): left and right may be swapped")
        origin = np.array(self._numbers(ORIGIN, axes, default="0 " * axes)[:3])
        straight = " ".join(map(str, np.eye(axes, dtype=int).ravel()))
        matrix = np.reshape(self._numbers(DIRECTION, axes**2, default=straight), (axes, axes))
        direction = matrix[:3, :3].T
        for key, nothing in INTENSITY.items():
            if self._numbers(key, 1, default=str(nothing))[0] != nothing:
                self.warn(f"its header gives an {key} other than {nothing:g}, which is not applied")
        affine = affine_of(self.path, spacing, direction, origin)
        self.check_axes(direction)
        if lengths := odd_lengths(direction):
            self.warn(
                f"its header gives axes of the lengths {lengths} ({DIRECTION[0]}), which multiply the spacing"
            )
        return self.to_mm(affine, self._fields.get("DistanceUnits", "mm"))

    def _decode(self, file: Path, stream: BinaryIO, num_files: int) -> Iterator[bytes]:
        present = file.stat().st_size - stream.tell()
        if self._is_compressed:
            promised = self._numbers("CompressedDataSize", 1, int, str(present))[0]
            if num_files == 1 and present != promised:
                fault = "truncated" if present < promised else "too long"
                raise DataError(self.path, f"{fault}: {present:,} compressed bytes where it promises {promised:,}")
        stream.seek(self._skip(present, num_files), os.SEEK_CUR)
        if self._is_text:
            return numbers_in_text(stream)
        return inflated(stream) if self._is_compressed else stored(stream)

    def _skip(self, present: int, num_files: int) -> int:
        """Bytes before the voxels of a file that has ``present`` bytes."""
        skip = self._numbers("HeaderSize", 1, int, "0")[0]
        if skip >= 0:
            return skip
        wanted = self._bytes_of_voxels(num_files)
        if skip != -1 or self._is_compressed or self._is_text or wanted > present:
            raise DataError(self.path, f"truncated, or a HeaderSize of {skip} that does not fit it")
        return present - wanted

    def _parse(self, lines: Iterator[tuple[str, int]]) -> TextHeader:
        fields: dict[str, str] = {}
        for line, position in lines:
            key, equals, value = (part.strip() for part in line.partition("="))
            if not line.strip():
                continue
            if not equals or not _KEY.fullmatch(key):
                raise DataError(self.path, "not a readable volume (a line of its header is not 'key = value')")
            if key in fields:
                raise DataError(self.path, f"{key} stands twice in its header")
            fields[key] = value
            if key == LAST:
                listed = [name for name, _ in lines] if value.startswith("LIST") else []
                return TextHeader(fields, fields, position, None if value.upper() == "LOCAL" else value, listed)
        raise DataError(self.path, f"not a readable volume (truncated: no {LAST} in its header)")

    @property
    def _dtype(self) -> np.dtype:
        name = self._text("ElementType")
        if name not in TYPES:
            raise DataError(self.path, f"voxels of type {private(name)} where CT has numbers ({', '.join(TYPES)})")
        order = ">" if self._flag(*BIG_ENDIAN) else "<"
        return np.dtype("f8" if self._is_text else order + TYPES[name])

    @property
    def _is_compressed(self) -> bool:
        return self._flag("CompressedData")

    @property
    def _is_text(self) -> bool:
        return not self._flag("BinaryData", default=True)

    def _flag(self, *keys: str, default: bool = False) -> bool:
        value = self._text(*keys, default=str(default))
        if value.lower() not in ("true", "false"):
            raise DataError(self.path, f"{keys[0]} in its header is {quoted(value)}, not True or False")
        return value.lower() == "true"
