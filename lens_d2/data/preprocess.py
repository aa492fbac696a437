"""From the volume frame to the cache frame (LENS, Section VI-A): orientation, pixel size, black borders, HU range.

Windowing and the 2 mm slice interval are applied when slices are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..structures.geometry import VolumeGeometry
from .volume import CTVolume


@dataclass(frozen=True)
class PreprocessParams:
    """Parameters of preprocessing.

    Attributes:
        pixel_spacing: mm per pixel; None keeps the pixels of the file.
        hu_range: values are clipped to it, both ends included. The default is that of 12-bit CT: scanners' values
            outside the field of view (-2000, -3024) become air.
        border_hu: pixels above it are body; what lies outside the body's bounding box over all slices is cut off.
            None cuts nothing off.
        border_opening: mm; thinner things (table top, tubes, noise) are not body.
        border_margin: mm that are kept around the bounding box.
    """

    pixel_spacing: float | None = 0.8
    hu_range: tuple[int, int] = (-1024, 3071)
    border_hu: float | None = -500.0
    border_opening: float = 5.6
    border_margin: float = 8.0


def cache_geometry(volume: CTVolume, params: PreprocessParams) -> VolumeGeometry:
    """The geometry of a volume with its cache frame laid out. A volume of nothing but air is kept whole."""
    geometry = replace(volume.geometry, pixel_spacing=params.pixel_spacing, crop=None)
    box = None if params.border_hu is None else _body_box(volume, params)
    if box is None:
        return geometry
    box = geometry.boxes_to_cache(box[None])[0]
    box = box.round(6)  # whole pixels stay whole, in whichever direction the file runs
    low = np.maximum(np.floor(box[:2]), 0)
    high = np.minimum(np.ceil(box[2:]), geometry.resized)
    return replace(geometry, crop=(*low, *high))


def cache_slices(volume: CTVolume, geometry: VolumeGeometry, hu_range: tuple[int, int]) -> Iterator[np.ndarray]:
    """The (H, W) int16 slices of the cache frame in order.

    Shrinking averages over a pixel's area, enlarging interpolates linearly. Both run from edge to edge of the
    slice, so that the pixels lie exactly where ``geometry`` says.
    """
    flip_x, flip_y, flip_z = geometry.flips
    x1, y1, x2, y2 = geometry.crop or (0, 0, *geometry.resized)
    shrinks = np.less_equal(geometry.resized, geometry.size[:2]).all()
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    for picture in volume.array[:: -1 if flip_z else 1]:
        picture = picture[:: -1 if flip_y else 1, :: -1 if flip_x else 1].clip(*hu_range)
        picture = cv2.resize(np.ascontiguousarray(picture), geometry.resized, interpolation=method)
        yield np.ascontiguousarray(picture[y1:y2, x1:x2])


def body_mask(picture: np.ndarray, spacing: Sequence[float], params: PreprocessParams) -> np.ndarray:
    """(H, W) uint8, 1 where a slice of HU shows the body: above ``border_hu``, and no thinner than the opening.

    Args:
        picture: (H, W) HU.
        spacing: begins with x and y mm of a pixel.
        params: with a ``border_hu``.
    """
    steps = np.minimum(params.border_opening / np.asarray(spacing[:2]) / 2, max(picture.shape)).astype(int)
    width, height = 2 * steps + 1
    kernel = np.ones(np.minimum((height, width), picture.shape), np.uint8)
    return cv2.morphologyEx((picture > params.border_hu).view(np.uint8), cv2.MORPH_OPEN, kernel)


def _body_box(volume: CTVolume, params: PreprocessParams) -> np.ndarray | None:
    """(4,) x1, y1, x2, y2 of the body and its margin, in pixel edges of the volume frame; None if all is air."""
    spacing = np.array(volume.geometry.spacing[:2])
    body = np.zeros(volume.array.shape[1:], np.uint8)
    for picture in volume.array:
        body |= body_mask(picture, spacing, params)
    if not body.any():
        return None
    columns, rows = np.flatnonzero(body.any(axis=0)), np.flatnonzero(body.any(axis=1))
    margin = params.border_margin / spacing
    return np.array([*([columns[0], rows[0]] - margin), *([columns[-1] + 1, rows[-1] + 1] + margin)])
