"""Places of a sub-volume's voxels in the source file, in the cache and in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy.optimize import linear_sum_assignment

_CORNERS = np.array(list(product([0, 1], repeat=3)))  # (8, 3): which end of a box along x, y, z each corner is


def body_axes(affine: np.ndarray) -> np.ndarray:
    """Axes of a file that run nearest to the body's left-right, front-back and foot-head axes.

    Args:
        affine: (4, 4) voxel index in the axis order of the file -> LPS mm.

    Returns:
        (3,) int: the axes of the file that are x, y and z. An oblique axis counts as the nearest one.
    """
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    nearness = np.abs(columns / np.linalg.norm(columns, axis=0))
    return linear_sum_assignment(nearness, maximize=True)[1]


@dataclass(frozen=True)
class VolumeGeometry:
    """Maps between the volume frame, the cache frame and the world, in both directions.

    The *volume frame* has the voxels of the source file, axes in x, y, z order, z along the body, flipped as in
    the file. The *cache frame* has its axes towards the patient's left, back and head (LPS), its slices
    resampled to ``pixel_spacing`` and clipped to ``crop``, z at its native interval. The *world* is LPS mm.

    Conventions: ``boxes`` and ``points`` in a slice count pixel edges (pixel i spans [i, i + 1]), ``slices`` and
    ``index`` points count centres (slice i is at i). Both may be fractional.

    Attributes:
        size: voxels (x, y, z) of the volume frame.
        affine: 4x4 nested tuples, volume-frame voxel centre index (x, y, z, 1) -> LPS mm. It need not be axis
            aligned, nor orthogonal (a tilted gantry shears it).
        pixel_spacing: mm per pixel of the cache frame in x and y, rounded so that whole pixels fill the slice;
            None keeps the file's pixels.
        crop: x1, y1, x2, y2 in whole pixels, the part of the oriented, resampled slices that the cache keeps; None
            keeps all.
    """

    size: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    pixel_spacing: float | None = None
    crop: tuple[int, int, int, int] | None = None

    def __post_init__(self):
        """Turn array-likes into plain numbers, so that the geometry compares, pickles and goes into JSON."""
        affine = np.asarray(self.affine, dtype=np.float64).reshape(4, 4) + 0.0  # no negative zeros
        columns = affine[:3, :3]
        lengths = np.linalg.norm(columns, axis=0)
        if not (np.isfinite(affine).all() and (lengths > 0).all() and _volume(columns / lengths) > 1e-9):
            raise ValueError(f"the affine has no inverse: {affine.tolist()}")
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        object.__setattr__(self, "affine", tuple(tuple(row) for row in affine.tolist()))
        if self.pixel_spacing is not None:
            object.__setattr__(self, "pixel_spacing", float(self.pixel_spacing))
        if self.crop is not None:
            object.__setattr__(self, "crop", tuple(int(edge) for edge in self.crop))

    def to_dict(self) -> dict:
        """The attributes, plain enough for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> VolumeGeometry:
        """The geometry that :meth:`to_dict` was called on."""
        return cls(**values)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm between voxel centres along x, y and z of the file, all > 0."""
        columns = np.asarray(self.affine)[:3, :3]
        return tuple(np.linalg.norm(columns, axis=0).tolist())

    @property
    def slice_interval(self) -> float:
        """mm between neighbouring slices, in the file and in the cache."""
        return self.spacing[2]

    @property
    def flips(self) -> tuple[bool, bool, bool]:
        """Whether x, y and z of the file run against the cache frame (to the right, front or feet)."""
        x, y, z = np.diag(np.asarray(self.affine)[:3, :3])
        return bool(x < 0), bool(y < 0), bool(z < 0)

    @property
    def obliquity(self) -> float:
        """Largest angle between an axis of the file and the patient's axis that it stands for, degrees."""
        columns = np.asarray(self.affine)[:3, :3]
        nearness = np.abs(np.diag(columns)) / np.linalg.norm(columns, axis=0)
        return float(np.degrees(np.arccos(nearness.clip(max=1.0))).max())

    @property
    def z_direction(self) -> int:
        """As of a record: +1 if the file's slices run to the head, -1 to the feet."""
        return -1 if self.flips[2] else 1

    @property
    def resized(self) -> tuple[int, int]:
        """Width and height of the resampled slice before clipping, in whole pixels that fill it exactly."""
        if self.pixel_spacing is None:
            return self.size[:2]
        extent = np.array(self.size[:2]) * self.spacing[:2]
        width, height = np.maximum(np.rint(extent / self.pixel_spacing), 1).tolist()
        return int(width), int(height)

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """(slices, height, width) of the cache frame."""
        x1, y1, x2, y2 = self.crop or (0, 0, *self.resized)
        return self.size[2], y2 - y1, x2 - x1

    @cached_property
    def _cache_step(self) -> np.ndarray:
        """(3,) volume-frame voxels per cache voxel along x, y, z, negative along flipped axes."""
        steps = np.array(self.size) / [*self.resized, self.size[2]]
        return np.where(self.flips, -steps, steps)

    @cached_property
    def _cache_start(self) -> np.ndarray:
        """(3,) start of the cache frame in the volume frame: x and y edges, centre of the slice."""
        corner = np.array([*(self.crop or (0, 0))[:2], 0.0])
        far = np.array([self.size[0], self.size[1], self.size[2] - 1.0])
        return np.where(self.flips, far, 0.0) + corner * self._cache_step

    def _to_cache(self, values: np.ndarray, axes: list[int]) -> np.ndarray:
        return (np.asarray(values, dtype=np.float64) - self._cache_start[axes]) / self._cache_step[axes]

    def _to_volume(self, values: np.ndarray, axes: list[int]) -> np.ndarray:
        return np.asarray(values, dtype=np.float64) * self._cache_step[axes] + self._cache_start[axes]

    def points_to_cache(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) x, y in edges of the volume frame -> the same points in the cache frame."""
        return self._to_cache(points, [0, 1])

    def points_to_volume(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) x, y in edges of the cache frame -> the same points in the volume frame."""
        return self._to_volume(points, [0, 1])

    def slices_to_cache(self, slices: np.ndarray) -> np.ndarray:
        """Slice positions of the volume frame, any shape, fractional -> positions in the cache frame."""
        return self._to_cache(np.asarray(slices)[..., None], [2])[..., 0]

    def slices_to_volume(self, slices: np.ndarray) -> np.ndarray:
        """Slice positions of the cache frame, any shape, fractional -> positions in the volume frame."""
        return self._to_volume(np.asarray(slices)[..., None], [2])[..., 0]

    def boxes_to_cache(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) x1, y1, x2, y2 in edges of the volume frame -> of the cache frame, corners in order."""
        return _ordered(self._to_cache(_corners(boxes, 2), [0, 1]))

    def boxes_to_volume(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) x1, y1, x2, y2 in edges of the cache frame -> of the volume frame, corners in order."""
        return _ordered(self._to_volume(_corners(boxes, 2), [0, 1]))

    def boxes3d_to_cache(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 6) x1, y1, z1, x2, y2, z2, edges in x and y, first and last slice in z -> cache frame."""
        return _ordered(self._to_cache(_corners(boxes, 3), [0, 1, 2]))

    def boxes3d_to_volume(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 6) x1, y1, z1, x2, y2, z2, edges in x and y, first and last slice in z -> volume frame."""
        return _ordered(self._to_volume(_corners(boxes, 3), [0, 1, 2]))

    def index_to_world(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) x, y, z voxel centre indices of the volume frame -> LPS mm. An edge x is index x - 0.5."""
        affine = np.asarray(self.affine)
        return np.asarray(points, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]

    def world_to_index(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) LPS mm -> x, y, z voxel centre indices of the volume frame (0.5 less than edges)."""
        affine = np.asarray(self.affine)
        return np.linalg.solve(affine[:3, :3], (np.asarray(points, dtype=np.float64) - affine[:3, 3]).T).T

    def boxes3d_to_world(self, boxes: np.ndarray) -> np.ndarray:
        """Smallest LPS boxes around 3D boxes, measured at the outer faces of their voxels.

        Args:
            boxes: (n, 6) x1, y1, z1, x2, y2, z2 of the volume frame, edges in x and y, z1 and z2 the first
                and the last slice, both included.

        Returns:
            (n, 6) smallest x, y, z and largest x, y, z in mm.
        """
        corners = _corners(boxes, 3) - [0.5, 0.5, 0.0]  # edges to centre indices
        corners[:, 0, 2] -= 0.5  # from the outer face of the first slice
        corners[:, 1, 2] += 0.5  # to that of the last
        world = self.index_to_world(corners[:, _CORNERS, [0, 1, 2]])
        return np.concatenate([world.min(axis=1), world.max(axis=1)], axis=1)

    def boxes3d_from_world(self, boxes: np.ndarray) -> np.ndarray:
        """Smallest 3D boxes of the volume frame around LPS boxes; the reverse of :meth:`boxes3d_to_world`.

        Args:
            boxes: (n, 6) smallest x, y, z and largest x, y, z in mm, at the outer faces of the voxels.

        Returns:
            (n, 6) x1, y1, z1, x2, y2, z2, edges in x and y, first and last slice in z. A box thinner than a slice
            has its middle as both.
        """
        world = _corners(boxes, 3)[:, _CORNERS, [0, 1, 2]]
        index = self.world_to_index(world.reshape(-1, 3)).reshape(world.shape)
        low, high = index.min(axis=1) + 0.5, index.max(axis=1) + 0.5  # centre indices to edges
        first, last = low[:, 2], high[:, 2] - 1
        thin = last < first
        first[thin] = last[thin] = (first[thin] + last[thin]) / 2
        return np.column_stack([low[:, :2], first, high[:, :2], last])

    @property
    def cache_affine(self) -> np.ndarray:
        """(4, 4) cache-frame voxel centre index (x, y, z, 1) -> LPS mm."""
        to_volume = np.diag([*self._cache_step, 1.0])
        half = np.array([0.5, 0.5, 0.0])  # an x or y index is half a pixel below its edge coordinate
        to_volume[:3, 3] = self._cache_start + half * self._cache_step - half
        return np.asarray(self.affine) @ to_volume


def displacement(affine: np.ndarray, other: np.ndarray, size: Sequence[int]) -> float:
    """Largest distance in mm between the places that two affines give a voxel; NaN if one is not finite.

    Args:
        affine, other: (4, 4) voxel centre index -> mm.
        size: voxels of the grid along its three axes.
    """
    corners = np.array(np.meshgrid(*([0, n - 1] for n in size))).reshape(3, -1)
    change = affine - other
    return float(np.linalg.norm(change[:3, :3] @ corners + change[:3, 3:], axis=0).max())


def _volume(columns: np.ndarray) -> float:
    """Volume of the parallelepiped that three vectors span."""
    return abs(float(np.linalg.det(columns)))


def _corners(boxes: np.ndarray, dimensions: int) -> np.ndarray:
    """(n, 2 * dimensions) boxes as (n, 2, dimensions) corners; an empty list gives none."""
    return np.array(boxes, dtype=np.float64).reshape(-1, 2, dimensions)


def _ordered(corners: np.ndarray) -> np.ndarray:
    """(n, 2, d) opposite corners as (n, 2 * d) boxes, low corner first."""
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
