"""Formats whose header is text and names the voxels' files, as those of MetaImage and NRRD do."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ...io.errors import DataError, private, quoted
from .source import Source
from .streams import read_voxels

HEADER_LIMIT = 1 << 20  # bytes; a header with the names of ten thousand files is smaller
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PLAIN = re.compile(r"[-+.0-9a-zA-Z]{1,64}")  # numbers as files write them, nan and inf too
_PATTERN = re.compile(r"[^%]*%0?\d*d[^%]*")  # a file name with one number in it


class TextHeader(NamedTuple):
    """The content of a header.

    Attributes:
        fields: values of the format's fields by their names.
        notes: values under names of the writer's own.
        end: position of the byte behind the header.
        data_file: value of the field that names the files of voxels; None if the voxels begin at ``end``.
        listed: lines behind the header, which may list files.
    """

    fields: dict[str, str]
    notes: dict[str, str]
    end: int
    data_file: str | None
    listed: list[str]


class TextHeaderFile(Source):
    """A file with a text header, and its voxels behind the header or in files of their own.

    Attributes:
        SUFFIXES: of the format's files, in lower case.
        DIMENSION, SIZE: names of the fields with the number of axes and the voxels along each.
        MODALITY: names of notes that may give the modality, as DICOM writes it.
    """

    SUFFIXES: tuple[str, ...]
    DIMENSION: str
    SIZE: str
    MODALITY: tuple[str, ...]
    VERSION = 2

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Whether the file has one of the suffixes."""
        return path.is_file() and path.suffix.lower() in cls.SUFFIXES

    def files(self) -> list[Path]:
        """The header's file and those of the voxels."""
        return [self.path, *self._voxel_files]

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size and affine; DataError unless there are three dimensions, or a fourth of size 1."""
        dimensions = self._dimensions
        if dimensions != self._num_axes:
            raise DataError(self.path, f"{dimensions} dimensions where a volume has 3")
        i, j, k = self._size
        return (i, j, k), self._affine()

    def array(self) -> np.ndarray:
        """(k, j, i) int16 voxels in HU."""
        return read_voxels(self.path, self._chunks(), self._dtype, self._size)

    @property
    def modality(self) -> str:
        """The first of the notes that may give the modality."""
        return next((self._parsed.notes[key] for key in self.MODALITY if key in self._parsed.notes), "")

    @abstractmethod
    def _parse(self, lines: Iterator[tuple[str, int]]) -> TextHeader:
        """Parse the lines of :func:`header_lines`."""

    @abstractmethod
    def _affine(self) -> np.ndarray:
        """(4, 4) voxel index -> LPS mm."""

    @property
    @abstractmethod
    def _dtype(self) -> np.dtype:
        """Type and byte order of the stored voxels; float64 if they are numbers in a text."""

    @abstractmethod
    def _decode(self, file: Path, stream: BinaryIO, num_files: int) -> Iterator[bytes]:
        """The voxels' bytes in one of the files, open where they may begin."""

    def _chunks(self) -> Iterator[bytes]:
        """The stored bytes of all the files of voxels."""
        files = self._voxel_files or [self.path]
        for file in files:
            with open(file, "rb") as stream:
                stream.seek(0 if self._voxel_files else self._parsed.end)
                yield from self._decode(file, stream, len(files))

    def _bytes_of_voxels(self, num_files: int) -> int:
        """Bytes of the uncompressed voxels in each of the files."""
        return math.prod(self._size) * self._dtype.itemsize // num_files

    @cached_property
    def _parsed(self) -> TextHeader:
        return self._parse(header_lines(self.path))

    @property
    def _fields(self) -> dict[str, str]:
        return self._parsed.fields

    @cached_property
    def _voxel_files(self) -> list[Path]:
        """The files of voxels; empty if the voxels follow the header."""
        value = self._parsed.data_file
        return [] if value is None else voxel_files(self.path, value, self._parsed.listed)

    @property
    def _dimensions(self) -> int:
        return self._numbers(self.DIMENSION, 1, int)[0]

    @property
    def _num_axes(self) -> int:
        """Axes of which the fields tell: 3, or 4 if the last has one voxel."""
        return 4 if self._dimensions == 4 and self._text(self.SIZE).split()[3:] == ["1"] else 3

    @property
    def _size(self) -> list[int]:
        size = self._numbers(self.SIZE, self._num_axes, int)[:3]
        if min(size) < 1:
            raise DataError(self.path, f"a size of {' x '.join(map(str, size))} voxels")
        return size

    def _text(self, *keys: str, default: str | None = None) -> str:
        """The value of the first of these fields that is there, else the default; DataError without either."""
        value = next((self._fields[key] for key in keys if key in self._fields), default)
        if value is None:
            raise DataError(self.path, f"no {keys[0]} in its header")
        return value

    def _numbers(self, keys: str | tuple[str, ...], count: int, kind=float, default: str | None = None) -> list:
        """The ``count`` numbers of a field, by its several names; DataError if it holds anything else."""
        keys = (keys,) if isinstance(keys, str) else keys
        return numbers(self.path, keys[0], self._text(*keys, default=default), count, kind)


def header_lines(path: Path) -> Iterator[tuple[str, int]]:
    """The lines of a file that begins with a text, and the position of the byte behind each.

    Raises:
        DataError: the file cannot be read, holds bytes that are no text, or its text does not end.
    """
    try:
        with open(path, "rb") as file:
            while line := file.readline(HEADER_LIMIT):
                if file.tell() > HEADER_LIMIT:
                    raise DataError(path, f"its header does not end within {HEADER_LIMIT >> 20} MB")
                if _NOT_TEXT.search(line):
                    raise DataError(path, "not a readable volume (its header holds bytes that are no text)")
                yield line.decode("latin-1").rstrip("\r\n"), file.tell()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error


def numbers(path: Path, key: str, text: str, count: int, kind: Callable[[str], float] = float) -> list:
    """Parse the ``count`` numbers of a field; DataError if it holds anything else."""
    words = text.split()
    try:
        if len(words) != count or any(not _PLAIN.fullmatch(word) for word in words):
            raise ValueError
        return [kind(word) for word in words]
    except ValueError:
        wanted = "whole number" if kind is int else "number"
        raise DataError(
            path, f"{key} in its header is {quoted(text)}, not {count} {wanted}{'s' * (count > 1)}"
        ) from None


def voxel_files(path: Path, value: str, listed: Sequence[str]) -> list[Path]:
    """Find the files of voxels that a header names.

    Args:
        path: the header.
        value: of its field: a file name; ``LIST`` (and the dimension of each file); or a pattern such as
            ``slice%03d.raw`` with the first number, the last and optionally the step.
        listed: the lines behind it, names of files in the case of a list.

    Raises:
        DataError: a name leads out of the folder of the header, a file is missing, or the pattern makes no sense.
    """
    words = value.split()
    if words[:1] == ["LIST"]:
        names = [line.strip() for line in listed if line.strip()]
    elif words and "%" in words[0]:
        names = _numbered(path, words)
    else:
        names = [value.strip()]
    if not names or not all(names):
        raise DataError(path, "its header names no file of voxels")
    files = []
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(path, "its data file lies outside of its folder")
        file = path.parent / name
        if not file.is_file():
            raise DataError(path, f"its data file {private(name)} is missing")
        files.append(file)
    return files


def _numbered(path: Path, words: list[str]) -> list[str]:
    try:
        first, last, *more = (int(word) for word in words[1:])
        count = (last - first) // (more[0] if more else 1) + 1
        if not _PATTERN.fullmatch(words[0]) or not 0 < count <= HEADER_LIMIT:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise DataError(
            path, f"its header names its data files by a senseless {quoted(' '.join(words))}"
        ) from None
    return [words[0] % (first + index * (more[0] if more else 1)) for index in range(count)]
