"""Headers that are text, as those of MetaImage and NRRD, and the files of voxels that they name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...io.errors import DataError

HEADER_LIMIT = 1 << 20  # bytes; a header with the names of ten thousand files is smaller
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PLAIN = re.compile(r"[-+.0-9a-zA-Z]{1,64}")  # numbers as files write them, nan and inf too
_PATTERN = re.compile(r"[^%]*%0?\d*d[^%]*")  # a file name with one number in it


def header_lines(path: Path) -> Iterator[tuple[str, int]]:
    """The lines of a file that starts with a text, and the position of the byte behind each.

    Raises:
        DataError: the file cannot be read, holds other bytes than text, or ever more text.
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
    """The ``count`` numbers of a field; DataError where it holds anything else."""
    words = text.split()
    try:
        if len(words) != count or any(not _PLAIN.fullmatch(word) for word in words):
            raise ValueError
        return [kind(word) for word in words]
    except ValueError:
        wanted = "whole number" if kind is int else "number"
        raise DataError(
            path, f"{key} in its header is {text!r}, not {count} {wanted}{'s' * (count > 1)}"
        ) from None


def sizes(path: Path, key: str, text: str) -> list[int]:
    """The three sizes of a grid in a field; DataError where it holds anything else."""
    size = numbers(path, key, text, 3, int)
    if min(size) < 1:
        raise DataError(path, f"a size of {' x '.join(map(str, size))} voxels")
    return size


def voxel_files(path: Path, value: str, listed: Sequence[str]) -> list[Path]:
    """The files of voxels that a header names.

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
            raise DataError(path, f"its data file {name} is missing")
        files.append(file)
    return files


def _numbered(path: Path, words: list[str]) -> list[str]:
    try:
        first, last, *more = (int(word) for word in words[1:])
        count = (last - first) // (more[0] if more else 1) + 1
        if not _PATTERN.fullmatch(words[0]) or not 0 < count <= HEADER_LIMIT:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise DataError(path, f"its header names its data files by a senseless {' '.join(words)!r}") from None
    return [words[0] % (first + index * (more[0] if more else 1)) for index in range(count)]
