"""Patches of a fixed size in mm around boxes, cut from cached volumes: the input of patch-based networks.

Patch coordinates are edges on all three axes: voxel i of a patch spans [i, i + 1] along x, y and z, and a box is
x1, y1, z1, x2, y2, z2 with its outer faces. A box on one slice is as thick as that slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .cache import CachedVolume

AIR = -1024.0
SLICES_PER_READ = 16  # native slices that are held in memory together


class Patches(NamedTuple):
    """Patches and the boxes around which they were cut.

    Attributes:
        hu: (n, D, H, W) float32.
        boxes: (n, 6) float32 in patch coordinates, clipped to the patch.
    """

    hu: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class PatchGrid:
    """The raster of a patch, whose centre lies on the centre of a box.

    Attributes:
        shape: voxels (D, H, W) along z, y and x of the cache frame.
        spacing: mm between them, in the same order.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    def crop(self, volume: CachedVolume, boxes: np.ndarray, shifts: np.ndarray | None = None) -> Patches:
        """Cut the patches around boxes of one volume; every slice that is needed is decoded once.

        Values are interpolated linearly, in the slice with a kernel as wide as the coarser of both rasters, so
        that a coarse patch averages what it covers. Beyond the image lies air; the first and last slice repeat
        beyond the ends.

        Args:
            volume: the cached sub-volume.
            boxes: (n, 6) x1, y1, z1, x2, y2, z2 of the volume frame: edges in x and y, first and last slice.
            shifts: (n, 3) x, y, z mm (cache frame) by which patches' centres are moved off those of the boxes.
        """
        low, high = self._faces(volume, boxes)
        center = (low + high) / 2
        if shifts is not None:
            center = center + np.asarray(shifts, dtype=np.float64).reshape(-1, 3)
        size, step = np.array(self.shape[::-1]), np.array(self.spacing[::-1])
        in_patch = [np.clip((face - center) / step + size / 2, 0, size) for face in (low, high)]
        return Patches(self._sample(volume, center), np.concatenate(in_patch, axis=1).astype(np.float32))

    @staticmethod
    def _faces(volume: CachedVolume, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3) x, y, z mm of the low and of the high faces of boxes, from the cache frame's first edges."""
        boxes = volume.geometry.boxes3d_to_cache(boxes)
        boxes[:, 5] += 1.0  # from first and last slice to edges
        mm = voxel_mm(volume)
        return boxes[:, :3] * mm, boxes[:, 3:] * mm

    def _sample(self, volume: CachedVolume, center: np.ndarray) -> np.ndarray:
        """(n, D, H, W) HU around (n, 3) centres in mm."""
        depth, height, width = self.shape
        mm = voxel_mm(volume)
        patches = np.full((len(center), *self.shape), AIR, dtype=np.float32)
        z = (center[:, 2:] + _offsets(depth, self.spacing[0])) / mm[2] - 0.5
        z = np.clip(z, 0, volume.shape[0] - 1)  # (n, D)
        rows = [_taps(y + _offsets(height, self.spacing[1]), mm[1], volume.shape[1]) for y in center[:, 1]]
        columns = [_taps(x + _offsets(width, self.spacing[2]), mm[0], volume.shape[2]) for x in center[:, 0]]
        needed = np.unique([np.floor(z), np.ceil(z)]).astype(int)
        for start in range(0, len(needed), SLICES_PER_READ):
            run = needed[start : start + SLICES_PER_READ]
            for number, picture in zip(run, volume.read(run), strict=True):
                share = np.clip(1 - np.abs(z - number), 0, None).astype(np.float32)  # (n, D)
                for i in np.flatnonzero(share.any(axis=1)):
                    (top, down), (left, across) = rows[i], columns[i]
                    window = picture[top : top + down.shape[1], left : left + across.shape[1]]
                    plane = down @ (window - AIR) @ across.T
                    on = np.flatnonzero(share[i])
                    patches[i, on] += share[i, on, None, None] * plane
        return patches


def voxel_mm(volume: CachedVolume) -> np.ndarray:
    """(3,) mm between voxels of the cache frame along x, y, z."""
    return np.linalg.norm(volume.geometry.cache_affine[:3, :3], axis=0)


def _offsets(count: int, step: float) -> np.ndarray:
    """(count,) mm from the centre of a patch to its voxels' centres along one axis."""
    return (np.arange(count) - (count - 1) / 2) * step


def _taps(positions: np.ndarray, pixel: float, size: int) -> tuple[int, np.ndarray]:
    """Weights of a row's pixels in samples at evenly spaced positions.

    Args:
        positions: (n,) mm from the edge of the row.
        pixel: mm per pixel.
        size: pixels of the row.

    Returns:
        the first pixel with a weight, and (n, m) float32 weights of it and those after it. They sum to 1 for a
        sample that lies inside the row, to less for one that reaches beyond it.
    """
    positions = positions / pixel - 0.5
    reach = max(1.0, abs(positions[1] - positions[0]) if len(positions) > 1 else 1.0)
    first, last = int(np.ceil(positions[0] - reach)), int(np.floor(positions[-1] + reach))
    pixels = np.arange(first, last + 1)
    weights = np.clip(reach - np.abs(pixels - positions[:, None]), 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    inside = (pixels >= 0) & (pixels < size)
    start = min(max(first, 0), size)
    return start, weights[:, inside].astype(np.float32)
