"""NRRD: a header of ``field: value`` lines, before the voxels (``.nrrd``) or apart from them (``.nhdr``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...io.errors import DataError, quoted
from .source import SOURCE_REGISTRY, distances
from .streams import inflated, numbers_in_text, skipped, stored, unpacked_bzip2
from .text_header import TextHeader, TextHeaderFile, numbers

MAGIC = re.compile(r"NRRD000[1-5]")
# All fields of the format; any other name is damaged.
FIELDS = {
    "type", "dimension", "sizes", "encoding", "endian", "space", "space dimension", "space directions",
    "space units", "space origin", "spacings", "axismins", "axismaxs", "centers", "centerings", "kinds", "labels",
    "units", "thicknesses", "sampleunits", "blocksize", "byteskip", "lineskip", "datafile", "content", "number",
    "min", "max", "oldmin", "oldmax", "measurement frame",
}  # fmt: skip
# Names that the format spells in one word or in two.
ONE_WORD = {
    "axis mins", "axis maxs", "sample units", "block size", "byte skip", "line skip", "data file",
    "old min", "old max",
}  # fmt: skip
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}  # fmt: skip
DTYPES = {name: dtype for dtype, names in TYPES.items() for name in names}
TEXT = ("txt", "text", "ascii")
DECODERS: dict[str, Callable] = {
    "raw": stored,
    "gz": inflated,
    "gzip": inflated,
    "bz2": unpacked_bzip2,
    "bzip2": unpacked_bzip2,
    **dict.fromkeys(TEXT, numbers_in_text),
}
# LPS sign of the direction in which an axis leads.
SIGNS = {"left": 1, "right": -1, "posterior": 1, "anterior": -1, "superior": 1, "inferior": -1}
UNORIENTED = ("scanner-xyz", "3d-right-handed", "3d-left-handed")  # spaces that say nothing of the body
SPACES = {"lps": "left-posterior-superior", "ras": "right-anterior-superior", "las": "left-anterior-superior"}
KINDS = ("domain", "space", "none", "???")  # of an axis that leads through space


@SOURCE_REGISTRY.register()
class NrrdFile(TextHeaderFile):
    """``.nrrd`` and ``.nhdr``, raw, gzip, bzip2 or text."""

    SUFFIXES = (".nrrd", ".nhdr")
    DIMENSION, SIZE = "dimension", "sizes"
    # As SimpleITK and Slicer write it.
    MODALITY = ("modality", "0008|0060", "0008_0060", "dicom_0008_0060_modality")

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size and affine; DataError unless there are three dimensions and one value per voxel."""
        kinds = self._fields.get("kinds", "").lower().split()
        for kind in kinds[:3] if self._num_axes == 4 else kinds:
            if kind not in KINDS:
                raise DataError(
                    self.path,
                    f"an axis of kind {quoted(kind)} where CT has one value per voxel and three axes",
                )
        return super().header()

    def _affine(self) -> np.ndarray:
        affine, units = np.eye(4), self._fields.get("space units", self._fields.get("units", ""))
        signs = self._signs
        if "space directions" in self._fields:
            affine[:3, :3] = self._vectors("space directions", 3).T * signs[:, None]
        elif "spacings" in self._fields:
            affine[:3, :3] = np.diag(distances(self.path, self._numbers("spacings", self._num_axes)[:3]))
        else:
            raise DataError(self.path, "no space directions and no spacings in its header")
        if "space origin" in self._fields:
            affine[:3, 3] = self._vectors("space origin", 1)[0] * signs
        elif "axismins" in self._fields:
            affine[:3, 3] = self._numbers("axismins", self._num_axes)[:3]
        else:
            self.warn("its header gives no position (space origin): the first voxel is taken for the origin")
        self.check_axes(affine[:3, :3])
        for unit in dict.fromkeys(re.findall(r'"([^"]*)"', units)[:3]):
            affine = self.to_mm(affine, unit)
        return affine

    @cached_property
    def _signs(self) -> np.ndarray:
        """(3,) 1 or -1 along the axes of the header's space -> LPS."""
        space = self._fields.get("space", "").lower()
        words = SPACES.get(space.removesuffix("-time").removesuffix("t"), space).split("-")[:3]
        if len(words) == 3 and all(word in SIGNS for word in words) and "space directions" in self._fields:
            return np.array([SIGNS[word] for word in words])
        told = space if space.removesuffix("-time") in UNORIENTED else "unknown" if space else "none"
        self.warn(f"its header gives no orientation (space: {told}): left and right may be swapped")
        return np.ones(3)

    def _vectors(self, field: str, count: int) -> np.ndarray:
        """(count, 3) numbers of a field such as ``(1,0,0) (0,1,0) (0,0,1)``, without those of a fourth axis."""
        text, has_fourth = self._fields[field], self._num_axes == 4
        if has_fourth and count == 3:
            text = text.removesuffix("none")
        inside = re.findall(r"\(([^()]*)\)", text)
        if has_fourth:
            inside = [",".join(vector.split(",")[:3]) for vector in inside[:count]]
        if len(inside) != count or re.sub(r"\([^()]*\)", "", text).strip():
            raise DataError(self.path, f"{field} in its header is {quoted(text)}, not {count} vectors (x,y,z)")
        return np.array([numbers(self.path, field, vector.replace(",", " "), 3) for vector in inside])

    def _decode(self, file: Path, stream: BinaryIO, num_files: int) -> Iterator[bytes]:
        byte_skip, line_skip = (self._numbers(key, 1, int, "0")[0] for key in ("byteskip", "lineskip"))
        for _ in range(line_skip):
            if not stream.readline():
                raise EOFError(f"its header skips {line_skip} lines")
        if byte_skip == -1 and self._encoding == "raw":
            stream.seek(max(file.stat().st_size - self._bytes_of_voxels(num_files), stream.tell()))
        elif byte_skip < 0 or line_skip < 0:
            raise DataError(self.path, f"a byte skip of {byte_skip} and a line skip of {line_skip}")
        chunks = DECODERS[self._encoding](stream)
        return skipped(chunks, byte_skip) if byte_skip > 0 else chunks

    def _parse(self, lines: Iterator[tuple[str, int]]) -> TextHeader:
        """Names of fields and notes in lower case."""
        fields: dict[str, str] = {}
        notes: dict[str, str] = {}
        magic, position = next(lines, ("", 0))
        if not MAGIC.fullmatch(magic):
            raise DataError(self.path, "not a readable volume (it does not start as an NRRD file)")
        for line, position in lines:  # noqa: B007
            if line.startswith("#"):
                continue
            if not line:
                break
            if ":=" in line:
                key, _, value = line.partition(":=")
                notes[key.strip().lower()] = value.strip()
                continue
            key, colon, value = (part.strip() for part in line.partition(":"))
            key = key.lower().replace(" ", "") if key.lower() in ONE_WORD else key.lower()
            if not colon or key not in FIELDS:
                raise DataError(
                    self.path,
                    f"not a readable volume (no field {quoted(line[:40])} exists in NRRD headers)",
                )
            if key in fields:
                raise DataError(self.path, f"{key} stands twice in its header")
            fields[key] = value
            if key == "datafile" and value.startswith("LIST"):
                return TextHeader(fields, notes, position, value, [name for name, _ in lines])
        else:
            if "datafile" not in fields:
                raise DataError(self.path, "truncated: its header does not end")
        return TextHeader(fields, notes, position, fields.get("datafile"), [])

    @property
    def _encoding(self) -> str:
        encoding = self._text("encoding").lower()
        if encoding not in DECODERS:
            raise DataError(self.path, f"its encoding is {quoted(encoding)}, not one of {', '.join(DECODERS)}")
        return encoding

    @property
    def _dtype(self) -> np.dtype:
        if self._encoding in TEXT:
            return np.dtype("f8")
        name = self._text("type").lower()
        if name not in DTYPES:
            raise DataError(self.path, f"voxels of type {quoted(name)} where CT has numbers")
        if DTYPES[name][1] == "1":  # a single byte has no order
            return np.dtype(DTYPES[name])
        endian = self._text("endian").lower()
        if endian not in ("little", "big"):
            raise DataError(self.path, f"its endian is {quoted(endian)}, not little or big")
        return np.dtype(("<" if endian == "little" else ">") + DTYPES[name])
