"""Boxes of the lesions in a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ...structures.boxes import hull
from ...structures.records import make_lesion

# Smaller components are slips of the pen, smaller than anything that counts as a lesion.
MIN_VOXELS = 3
TOUCHING = np.ones((3, 3, 3))  # voxels that share a corner are one component


def components(mask: np.ndarray) -> np.ndarray:
    """Number the connected components (26 neighbours) of a boolean (z, y, x) mask from 1."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    occupied = ndimage.find_objects(mask.astype(np.uint8))
    if occupied:  # most of a volume is empty
        labels[occupied[0]], _ = ndimage.label(mask[occupied[0]], structure=TOUCHING)
    return labels


def lesions_in(labels: np.ndarray, volume: str, spacing: Sequence[float], kind: str) -> list[dict]:
    """Make a lesion of every number in a mask, with its box on every slice and in 3D.

    Args:
        labels: (z, y, x) integers in the volume frame; 0 is no lesion.
        volume: name of the sub-volume.
        spacing: x, y, z mm. The diameter is the longest side of a slice box.
        kind: of all the lesions.

    Returns:
        lesions in the order of their numbers (see :func:`lens_d2.structures.records.make_lesion`), without those
        of fewer than :data:`MIN_VOXELS` voxels.
    """
    lesions = []
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        inside = labels[where] == number
        if inside.sum() < MIN_VOXELS:
            continue
        z0, y0, x0 = (part.start for part in where)
        boxes = []
        for z in np.flatnonzero(inside.any(axis=(1, 2))):
            y, x = np.flatnonzero(inside[z].any(axis=1)), np.flatnonzero(inside[z].any(axis=0))
            boxes.append([z0 + z, x0 + x[0], y0 + y[0], x0 + x[-1] + 1, y0 + y[-1] + 1])
        table = np.array(boxes, dtype=np.float64)
        sides = (table[:, 3:] - table[:, 1:3]) * np.asarray(spacing[:2])
        lesions.append(
            make_lesion(
                f"{volume}/{number}",
                boxes,
                box3d=hull(table),
                diameter_mm=sides.max(),
                kind=kind,
            )
        )
    return lesions
