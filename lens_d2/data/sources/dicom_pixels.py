"""Pixels of DICOM slices in HU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from scipy import ndimage

from ...io.dicom_header import dicom_errors
from ...io.errors import DataError
from . import gdcm_decoder
from .dicom_file import Frame, Pixels

LIMITS = np.iinfo(np.int16)
PYDICOM = Path(pydicom.__file__).parent
AIR = -1024  # HU of padding that would come out as tissue
TISSUE = -900  # HU above which padding is no air

gdcm_decoder.register()


def read_frame(frame: Frame) -> np.ndarray:
    """(rows, columns) int16 HU of one slice; errors as :func:`read_frames`."""
    return next(iter(read_frames([frame])))


def read_frames(frames: Iterable[Frame], warn: Callable[[str], None] | None = None) -> Iterator[np.ndarray]:
    """Decode slices of one file, one at a time.

    Args:
        frames: in the order of their numbers.
        warn: called with each oddity that the decoder finds, one line.

    Yields:
        (rows, columns) int16 HU, by each slice's own slope and intercept, rounded and saturated. MONOCHROME1 is
        not inverted, as it concerns the display only. Declared padding outside the field of view is air.

    Raises:
        DataError: the pixels are damaged, or nothing here decodes their compression.
    """
    frames = list(frames)
    stored = _decode(frames[0].pixels, [frame.number for frame in frames])
    for frame in frames:
        with dicom_errors(frame.path), warnings.catch_warnings(record=True) as odd:
            warnings.simplefilter("always")
            values = next(stored)
            picture = _to_hu(values, frame.rescale or (1, 0))
        decoders = _of_the_decoder(odd)
        is_within = _fill_padding(picture, values, frame.pixels.padding)
        if warn is not None:
            if is_within:
                warn("values that the header declares to be padding lie within the slices: left as they are there")
            for each in decoders:
                warn(f"stored pixels may be damaged: {' '.join(str(each.message).split())}")
        yield picture


def _of_the_decoder(caught: Iterable[warnings.WarningMessage]) -> list[warnings.WarningMessage]:
    """The decoder's own warnings; those of other threads or of files that are closed meanwhile are given again."""
    own = []
    for each in caught:
        if PYDICOM in Path(each.filename).parents:
            own.append(each)
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return own


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


def _fill_padding(picture: np.ndarray, stored: np.ndarray, padding: tuple[int, int] | None) -> bool:
    """Turn padding that would pass for tissue into air, where it reaches the edge of the slice.

    Some headers declare a value that tissue has, too.

    Args:
        picture: (rows, columns) HU, changed.
        stored: (rows, columns) values in the file.
        padding: lowest and highest stored value of it.

    Returns:
        Whether such values lie within the slice, too.
    """
    if padding is None:
        return False
    declared = (stored >= padding[0]) & (stored <= padding[1]) & (picture > TISSUE)
    if not declared.any():
        return False
    regions, _ = ndimage.label(declared)
    at_edge = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    outside = declared & np.isin(regions, at_edge)
    picture[outside] = AIR
    return bool((declared & ~outside).any())
