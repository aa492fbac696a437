"""Pixels of DICOM slices in HU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import numpy as np
import pydicom
from pydicom.pixels import get_decoder

from ...io.dicom_header import dicom_errors
from ...io.errors import DataError
from . import gdcm_decoder
from .dicom_file import Frame, Pixels

LIMITS = np.iinfo(np.int16)

gdcm_decoder.register()


def read_frame(frame: Frame) -> np.ndarray:
    """(rows, columns) int16 HU of one slice; errors as :func:`read_frames`."""
    return next(iter(read_frames([frame])))


def read_frames(frames: Iterable[Frame], warn: Callable[[str], None] | None = None) -> Iterator[np.ndarray]:
    """Decodes slices of one file, one at a time.

    Args:
        frames: in the order of their numbers.
        warn: called with each oddity that the decoder finds, one line.

    Yields:
        (rows, columns) int16 HU, by each slice's own slope and intercept, rounded and saturated. MONOCHROME1 is
        not inverted, as it concerns the display only.

    Raises:
        DataError: the pixels are damaged, or nothing here decodes their compression.
    """
    frames = list(frames)
    stored = _decode(frames[0].pixels, [frame.number for frame in frames])
    for frame in frames:
        with dicom_errors(frame.path), warnings.catch_warnings(record=True) as odd:
            warnings.simplefilter("always")
            picture = _to_hu(next(stored), frame.rescale or (1, 0))
        if warn is not None:
            for each in odd:
                warn(f"stored pixels may be damaged: {' '.join(str(each.message).split())}")
        yield picture


def _decode(pixels: Pixels, numbers: list[int]) -> Iterator[np.ndarray]:
    decoder = get_decoder(pixels.syntax)
    if not decoder.is_available:
        raise DataError(pixels.path, f"its compression, {pixels.syntax.name}, cannot be decoded")
    with ExitStack() as stack:
        if pixels.offset is None:
            source = pydicom.dcmread(pixels.path)
        else:
            source = stack.enter_context(open(pixels.path, "rb"))
            source.seek(pixels.offset)
        options = {} if pixels.offset is None else pixels.options
        plugin = gdcm_decoder.NAME if gdcm_decoder.NAME in decoder.available_plugins else ""
        try:
            decoded = decoder.iter_array(source, indices=numbers, raw=True, decoding_plugin=plugin, **options)
            yield from (array for array, _ in decoded)
        except (RuntimeError, ValueError) as error:
            raise DataError(pixels.path, "its pixels are damaged, they cannot be decoded") from error


def _to_hu(stored: np.ndarray, rescale: tuple[float, float]) -> np.ndarray:
    slope, intercept = rescale
    values = stored.astype(np.float64)
    values *= slope
    values += intercept
    return np.rint(values, out=values).clip(LIMITS.min, LIMITS.max, out=values).astype(np.int16)
