"""Reading CT of any format: Hounsfield units in (z, y, x) order, and their place in the world."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike

import numpy as np

from ..io.errors import DataError
from ..io.memory import check_memory
from ..structures.geometry import VolumeGeometry, body_axes
from .checks import check_mask, check_volume, refuse_other_modalities
from .sources import Source, open_source

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CTVolume:
    """A sub-volume in its volume frame.

    Attributes:
        array: (z, y, x) int16 HU.
        geometry: its place in the world. Its cache frame is the file's own pixels, oriented, not resampled.
        warnings: reasons to distrust the voxels or their place, a line each.
    """

    array: np.ndarray
    geometry: VolumeGeometry
    warnings: tuple[str, ...] = ()


def read_header(source: Mapping | str | PathLike | Source, **options) -> VolumeGeometry:
    """Read the geometry of a sub-volume, but not its voxels.

    Args:
        source: a path, or a dataset record (a mapping) whose ``file_name`` is one: a folder of PNG slices or of
            DICOM files, or a volume file (NIfTI, MetaImage, NRRD, or any other format of SimpleITK). A folder of
            PNG slices needs ``spacing`` (x, y, z mm) and takes ``z_direction``, ``first_slice``, ``num_slices``
            and ``missing_slices``, see :class:`lens_d2.data.sources.PngFolder`. A DICOM folder of several series
            needs ``series_uid``. ``affine`` (4x4, voxel index in the axis order of the file -> LPS mm) replaces
            that of the file, to correct a wrong header. An open :class:`Source` serves, too.
        options: any of these keys, for a path or in place of those of the record.

    Raises:
        DataError: the file is absent, damaged or of another kind, or its spacing is not positive and finite.
    """
    return _orient(_source(source, options))[1]


def read_axes(source: Mapping | str | PathLike | Source, **options) -> np.ndarray:
    """(3,) axes i, j, k of a file that are x, y and z; arguments and errors as in :func:`read_header`."""
    return _orient(_source(source, options))[0]


def read_volume(source: Mapping | str | PathLike | Source, **options) -> CTVolume:
    """Read the voxels of a sub-volume and their geometry; arguments and errors as in :func:`read_header`.

    Axes are brought into x, y, z order, but not flipped. Values are rounded and saturated to int16, but not
    clipped further (see :mod:`lens_d2.data.preprocess`). Signs that this is not CT in HU and mm become warnings
    (see :mod:`lens_d2.data.checks`).

    Raises:
        DataError: also if the header names another modality, or memory cannot hold the volume.
    """
    file = _source(source, options)
    refuse_other_modalities(file.path, file.modality)
    array, geometry = _read(file)
    for text in check_volume(array, geometry):
        file.warn(text)
    return CTVolume(array, geometry, tuple(file.warnings))


def read_mask(
    source: Mapping | str | PathLike, like: VolumeGeometry, warn: Callable[[str], None] | None = None, **options
) -> np.ndarray:
    """Read the labels of a mask, in the volume frame of its CT.

    Args:
        source, options: as in :func:`read_header`.
        like: geometry of the CT. The mask has its voxels; axes that run the other way in the mask's file are
            flipped.
        warn: called with each contradiction between mask and CT, one line; without it, they are logged.

    Returns:
        (z, y, x) int16 labels.

    Raises:
        DataError: also if the mask has another shape than the CT.
    """
    file = _source(source, options)
    array, geometry = _read(file)
    if geometry.size != like.size:
        sizes = [" x ".join(map(str, each.size)) for each in (geometry, like)]
        raise DataError(file.path, f"a mask of {sizes[0]} voxels for a volume of {sizes[1]}")
    for text in [*(f"the mask: {text}" for text in file.warnings), *check_mask(geometry, like)]:
        if warn is None:
            logger.warning("%s: %s", file.path, text)
        else:
            warn(text)
    flipped = [2 - axis for axis in range(3) if geometry.flips[axis] != like.flips[axis]]
    return np.ascontiguousarray(np.flip(array, flipped))


def _read(file: Source) -> tuple[np.ndarray, VolumeGeometry]:
    """(z, y, x) int16 voxels, held once in memory unless their axes are out of order, and their place."""
    axes, geometry = _orient(file)
    in_order = axes.tolist() == [0, 1, 2]
    needed = file.bytes_per_voxel if in_order else max(file.bytes_per_voxel, 4)  # the copy with the axes in order
    check_memory(file.path, math.prod(geometry.size), needed)
    try:
        array = file.array().transpose([2 - axes[2], 2 - axes[1], 2 - axes[0]])
    except MemoryError:
        raise DataError(file.path, f"the memory does not hold its {math.prod(geometry.size):,} voxels") from None
    if array.shape[::-1] != geometry.size:
        raise DataError(file.path, f"{array.shape[::-1]} voxels where the header says {geometry.size}")
    return np.ascontiguousarray(array), geometry


def _source(source: Mapping | str | PathLike | Source, options: dict) -> Source:
    if isinstance(source, Source):
        return source
    record = source if isinstance(source, Mapping) else {"file_name": source}
    return open_source({**record, **options})


def _orient(source: Source) -> tuple[np.ndarray, VolumeGeometry]:
    """The file's axes that are x, y and z, and the geometry in that order."""
    size, affine = source.header()
    if source.record.get("affine") is not None:
        affine = np.asarray(source.record["affine"], dtype=np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (spacing > 0).all()):
        numbers = " x ".join(f"{step:g}" for step in spacing)
        raise DataError(source.path, f"the voxel spacing is {numbers} mm; it must be positive and finite")
    axes = body_axes(affine)
    try:
        return axes, VolumeGeometry(np.asarray(size)[axes], affine[:, [*axes, 3]])
    except ValueError as error:
        raise DataError(source.path, str(error)) from error
