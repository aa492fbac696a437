"""Voxels as a stream of bytes: unpacked in bounded memory, length and checksum checked, held once as int16."""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...io.errors import DataError, private

CHUNK = 1 << 20  # bytes that are read or unpacked at a time
LONGEST_NUMBER = 64  # characters of a number in a text file; more is not a number
GZIP_OR_ZLIB = 47  # zlib's code for either, by the first bytes of the stream


def stored(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file from its current position, as they are stored."""
    return iter(partial(file.read, CHUNK), b"")


def inflated(file: BinaryIO) -> Iterator[bytes]:
    """Unpack a gzip or zlib stream and check its checksums."""
    return _unpacked(file, partial(zlib.decompressobj, GZIP_OR_ZLIB))


def unpacked_bzip2(file: BinaryIO) -> Iterator[bytes]:
    """Unpack a bzip2 stream and check its checksums."""
    return _unpacked(file, bz2.BZ2Decompressor)


def numbers_in_text(file: BinaryIO) -> Iterator[bytes]:
    """Parse the numbers of a text, separated by blanks or commas, into bytes of float64."""
    rest = b""
    for block in stored(file):
        words = (rest + block).replace(b",", b" ")
        numbers = words.split()
        rest = numbers.pop() if numbers and not words[-1:].isspace() else b""
        if len(rest) > LONGEST_NUMBER:
            raise ValueError("something else than numbers")
        yield np.array(numbers, dtype=np.float64).tobytes()
    yield np.array(rest.split(), dtype=np.float64).tobytes()


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip does, whatever its name."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def skipped(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """The chunks without their first ``count`` bytes; EOFError if there are fewer."""
    for chunk in chunks:
        if count < len(chunk):
            yield chunk[count:]
        count -= min(count, len(chunk))
    if count:
        raise EOFError(f"{count} bytes are missing before the voxels")


def read_voxels(
    path: Path,
    chunks: Iterable[bytes],
    dtype: np.dtype | type | str,
    size: Sequence[int],
    slope: float = 1.0,
    intercept: float = 0.0,
) -> np.ndarray:
    """Convert voxels of any real type to int16: ``slope * stored + intercept`` in float64, rounded and saturated.

    Args:
        path: named by errors.
        chunks: the stored bytes, in pieces of any length; nothing may be left over.
        dtype: of the stored numbers, with their byte order.
        size: voxels (i, j, k), fastest first.
        slope, intercept: of the conversion.

    Returns:
        (k, j, i) int16.

    Raises:
        DataError: the stream is damaged, holds fewer or more voxels than ``size``, or some are NaN or infinite.
    """
    dtype, count = np.dtype(dtype), math.prod(size)
    convert = _same if dtype == np.int16 and (slope, intercept) == (1, 0) else partial(_scaled, slope, intercept)
    voxels, done, rest, not_numbers = np.empty(count, np.int16), 0, b"", 0
    try:
        for chunk in chunks:
            chunk = rest + chunk if rest else chunk
            whole = len(chunk) // dtype.itemsize
            if done + whole > count:
                raise DataError(path, f"holds more than the {count:,} voxels that its header promises")
            values = convert(np.frombuffer(chunk, dtype, whole))
            if values.dtype.kind == "f":
                not_numbers += int(np.isnan(values).sum())
                values = np.nan_to_num(values, copy=False)
            voxels[done : done + whole] = values
            done, rest = done + whole, chunk[whole * dtype.itemsize :]
    except DataError:
        raise
    except EOFError as error:
        raise DataError(path, f"truncated: {error or 'its voxels end early'}") from error
    except (OSError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not the decompressor's
            raise DataError(path, f"cannot be read: {error.strerror}") from error
        raise DataError(path, f"truncated or damaged, cannot be unpacked ({private(error)})") from error
    if done < count:
        raise DataError(path, f"truncated: {done:,} of the {count:,} voxels that its header promises")
    if rest:
        raise DataError(path, f"holds {len(rest)} bytes more than the {count:,} voxels that its header promises")
    if not_numbers:
        raise DataError(path, f"{not_numbers} voxels are NaN or infinite")
    return voxels.reshape(tuple(size)[::-1])


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _scaled(slope: float, intercept: float, values: np.ndarray) -> np.ndarray:
    """Whole numbers in float64 within the range of int16, or NaN for what is NaN or infinite."""
    with np.errstate(invalid="ignore", over="ignore"):
        wide = values.astype(np.float64) * slope + intercept
    if values.dtype.kind == "f":
        wide[~np.isfinite(wide)] = np.nan
    limits = np.iinfo(np.int16)
    return np.rint(wide.clip(limits.min, limits.max))


def _unpacked(file: BinaryIO, make: Callable) -> Iterator[bytes]:
    """Unpack the members of a file one after another.

    Raises:
        EOFError: the first one is cut off.
        zlib.error, OSError: the decompressors' errors on damage.
        ValueError: a whole member is followed by something else.
    """
    rest = yield from _member(file, make(), file.read(CHUNK))
    while rest:
        try:
            rest = yield from _member(file, make(), rest)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"more bytes follow the compressed ones: {error}") from error


def _member(file: BinaryIO, decompressor, block: bytes) -> Generator[bytes, None, bytes]:
    """Unpack the member that begins with ``block``; return the bytes that have been read behind it."""
    while not decompressor.eof:
        data = decompressor.decompress(block, CHUNK)
        if data:
            yield data
        block = getattr(decompressor, "unconsumed_tail", b"")
        if not block and len(data) < CHUNK and not decompressor.eof:
            block = file.read(CHUNK)
            if not block:
                raise EOFError("its compressed voxels end early")
    return decompressor.unused_data or file.read(CHUNK)
