"""Where a scan's voxels lie in a patient's anatomy: the voxel grid, the pose, and the canvas that is painted.

Scan space is LPS millimetres on the table (x to the patient's left, y to posterior, z to the head).
Anatomy space is the same frame for the same patient lying still at reference size: the shapes of
``anatomy.py`` are defined there, so that a lesion keeps its place from study to study.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np


@dataclass(frozen=True)
class Waves:
    """A smooth random function of position: a sum of sines, zero mean.

    Attributes:
        vectors: (n, 3) wave vectors in radians per mm.
        phases: (n,) radians.
        amplitudes: (n,) or (n, channels).
    """

    vectors: np.ndarray
    phases: np.ndarray
    amplitudes: np.ndarray

    @classmethod
    def random(cls, rng, amplitude, wavelength, count=4):
        """``count`` waves of mean ``wavelength`` mm (within a factor 1.6) and joint deviation ``amplitude``."""
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = wavelength * rng.uniform(0.63, 1.6, (count, 1))
        vectors = 2 * np.pi * directions / lengths
        sizes = rng.uniform(0.6, 1.4, count) * amplitude * np.sqrt(2 / count)
        return cls(vectors, rng.uniform(0, 2 * np.pi, count), sizes)

    def __call__(self, x, y, z):
        """The function's value at arrays of coordinates that broadcast against each other."""
        total = 0.0
        for (kx, ky, kz), phase, amplitude in zip(self.vectors, self.phases, self.amplitudes, strict=True):
            angle = np.float32(kx) * x + np.float32(ky) * y + np.float32(kz) * z
            angle += np.float32(phase)
            total = total + np.float32(amplitude) * np.sin(angle)
        return total


@dataclass(frozen=True)
class ScanGrid:
    """The voxels of one scan.

    Attributes:
        shape: (Z, H, W).
        spacing: x, y, z in mm, positive.
        origin: x, y, z of the centre of voxel (0, 0, 0), LPS mm.
        direction: the sign of each axis: -1 where the index runs against LPS.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[int, int, int] = (1, 1, 1)

    @property
    def step(self) -> np.ndarray:
        return np.asarray(self.spacing) * np.asarray(self.direction)

    def to_scan(self, index) -> np.ndarray:
        """(..., 3) fractional voxel indices x, y, z to scan millimetres."""
        return np.asarray(self.origin) + np.asarray(index) * self.step

    def to_index(self, points) -> np.ndarray:
        """(..., 3) scan millimetres to fractional voxel indices x, y, z."""
        return (np.asarray(points) - np.asarray(self.origin)) / self.step


@dataclass(frozen=True)
class Pose:
    """From scan space to anatomy space: turn and shift on the table, breathing, and the patient's own build.

    Attributes:
        scale: (3,) the patient's size along x, y, z, relative to the reference body.
        angles: (3,) small rotations about x, y, z in radians.
        shift: (3,) of the body on the table, mm.
        breath: how far the diaphragm stands below its reference height, mm.
        build: three Waves, the patient's displacement along x, y and z, mm.
    """

    scale: np.ndarray
    angles: np.ndarray
    shift: np.ndarray
    breath: float
    build: tuple = field(default=())

    def _rotation(self):
        a, b, c = self.angles
        return np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]])  # first order: the angles are a few degrees

    def to_anatomy(self, points) -> np.ndarray:
        """(..., 3) scan millimetres to anatomy millimetres."""
        points = (np.asarray(points, dtype=np.float64) - self.shift) @ self._rotation().T / self.scale
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        moved = np.stack([w(x, y, z) for w in self.build], axis=-1) if self.build else 0.0
        moved = points + moved
        moved[..., 2] += self.breath * np.exp(-(((z + 30.0) / 80.0) ** 2))
        return moved

    def to_scan(self, points, iterations: int = 6) -> np.ndarray:
        """(..., 3) anatomy millimetres to scan millimetres, by fixed-point iteration (within 0.01 mm)."""
        points = np.asarray(points, dtype=np.float64)
        guess = points * self.scale + self.shift
        for _ in range(iterations):
            guess = guess + (points - self.to_anatomy(guess)) * self.scale
        return guess


@dataclass(frozen=True)
class Window:
    """A part of a canvas: fine slices z, and blocks of ``factor`` pixels along y and x (half-open)."""

    z: slice
    y: slice
    x: slice
    factor: int

    @property
    def index(self) -> tuple[slice, slice, slice]:
        """The same part in fine voxels z, y, x."""
        return self.z, *(slice(s.start * self.factor, s.stop * self.factor) for s in (self.y, self.x))


class Canvas:
    """HU on a fine grid, several sub-slices a slice, onto which shapes are painted with soft edges.

    Smooth shapes are evaluated on a coarse lattice (one node per block of ``factor`` pixels) and refined
    linearly, slice by slice, which is what makes a torso cheap; small ones are evaluated at every voxel.

    Args:
        grid: the scan; H and W must be multiples of ``factor``.
        pose: scan space to anatomy space.
        subslices: how many fine slices are averaged into one slice (partial volume).
        node_mm: wanted distance of the lattice's nodes.
    """

    def __init__(self, grid: ScanGrid, pose: Pose, subslices: int = 2, node_mm: float = 8.0):
        self.grid, self.pose, self.subslices = grid, pose, subslices
        self.pixel = float(np.mean(grid.spacing[:2]))
        self.factor = next(f for f in (4, 2, 1) if f * self.pixel <= 1.15 * node_mm or f == 1)
        depth, height, width = grid.shape
        if height % self.factor or width % self.factor:
            raise ValueError(f"matrix {height}x{width} is not a multiple of {self.factor}")
        self.hu = np.full((depth * subslices, height, width), -1000.0, np.float32)
        self.step = np.array([grid.spacing[2] / subslices, grid.spacing[1], grid.spacing[0]])
        stride = max(1, int(node_mm / self.step[0]))
        place = np.arange(len(self.hu)) / stride
        self._below, self._mix = place.astype(int), (place % 1.0).astype(np.float32)
        nodes = np.arange(self._below[-1] + 2) * stride
        f = self.factor
        node_z = (nodes + 0.5) / subslices - 0.5
        node_y = (np.arange(-1, height // f + 1) + 0.5) * f - 0.5
        node_x = (np.arange(-1, width // f + 1) + 0.5) * f - 0.5
        index = np.stack(np.meshgrid(node_z, node_y, node_x, indexing="ij")[::-1], axis=-1)
        self.coarse = np.moveaxis(pose.to_anatomy(grid.to_scan(index)).astype(np.float32), -1, 0).copy()

    @property
    def whole(self) -> Window:
        _, height, width = self.hu.shape
        f = self.factor
        return Window(slice(0, len(self.hu)), slice(0, height // f), slice(0, width // f), f)

    def window(self, low, high) -> Window | None:
        """The smallest window that holds the box low..high (x, y, z of anatomy space), None if outside."""
        inside = np.ones(self.coarse.shape[1:], bool)
        for axis, (a, b) in enumerate(zip(low, high, strict=True)):
            inside &= (self.coarse[axis] > a - 12) & (self.coarse[axis] < b + 12)
        if not inside.any():
            return None
        spans = []
        for axis, size in ((1, self.hu.shape[1] // self.factor), (2, self.hu.shape[2] // self.factor)):
            hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
            spans.append(slice(max(hit[0] - 2, 0), min(hit[-1] + 1, size)))
        levels = inside.any(axis=(1, 2))
        rows = np.flatnonzero(levels[self._below] | levels[self._below + 1])
        if not len(rows) or any(s.start >= s.stop for s in spans):
            return None
        return Window(slice(rows[0], rows[-1] + 1), *spans, self.factor)

    def nodes(self, window: Window):
        """Coarse coordinates x, y, z around a window, one ring of nodes more than its blocks."""
        y, x = (slice(s.start, s.stop + 2) for s in (window.y, window.x))
        return self.coarse[:, :, y, x]

    def planes(self, values, window: Window):
        """Values at ``nodes(window)`` refined to the window's fine slices, one (h, w) plane after another."""
        f = self.factor
        rows, columns = values.shape[1:]
        inner = slice(f, (rows - 1) * f), slice(f, (columns - 1) * f)
        for k in range(window.z.start, window.z.stop):
            below, mix = self._below[k], self._mix[k]
            plane = values[below] + mix * (values[below + 1] - values[below])
            yield cv2.resize(plane.astype(np.float32, copy=False), (columns * f, rows * f))[inner]

    def refine(self, values, window: Window) -> np.ndarray:
        """Values at ``nodes(window)`` to the window's fine voxels, linear between nodes."""
        return np.stack(list(self.planes(values, window)))

    def evaluate(self, shape, window: Window) -> np.ndarray:
        """A function of anatomy coordinates on every fine voxel of a window."""
        x, y, z = (self.refine(c, window) for c in self.nodes(window))
        return np.asarray(shape(x, y, z), np.float32)

    def coverage(self, distance, margin: float | None = None) -> np.ndarray:
        """Distance inside a surface (mm, positive inside) to the share of a voxel that it fills, in place."""
        distance *= np.float32(1.0 / (margin or self.pixel))
        distance += np.float32(0.5)
        return np.clip(distance, 0.0, 1.0, out=distance)

    def blend(self, index, coverage, value) -> None:
        """Paint ``value`` (scalar or array, HU) over a part of the canvas where ``coverage`` says."""
        target = self.hu[index]
        change = value - target
        change *= coverage
        target += change

    def stamp(self, beads: np.ndarray):
        """How far strings of beads fill each fine voxel.

        Args:
            beads: (n, 4) x, y, z in anatomy space and radius, mm.
        Returns:
            (index, coverage) of the part of the canvas around them, or None if no bead touches it.
        """
        heights, margin = self.coarse[2], beads[:, 3].max(initial=0.0) + 4.0
        beads = beads[(beads[:, 2] > heights.min() - margin) & (beads[:, 2] < heights.max() + margin)]
        if not len(beads):
            return None
        centres = self.grid.to_index(self.pose.to_scan(beads[:, :3]))[:, ::-1]
        centres[:, 0] = (centres[:, 0] + 0.5) * self.subslices - 0.5
        reach = (beads[:, 3:] + self.pixel) / self.step
        near = np.all((centres > -reach) & (centres < np.array(self.hu.shape) + reach), axis=1)
        if not near.any():
            return None
        centres, radii, reach = centres[near], beads[near, 3], reach[near]
        low = np.maximum(np.floor((centres - reach).min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil((centres + reach).max(axis=0)) + 1, self.hu.shape).astype(int)
        cover = np.zeros(high - low, np.float32)
        sizes = np.ceil(np.log(np.maximum(radii, 0.5)) / np.log(1.3))
        for size in np.unique(sizes):
            chosen = sizes == size
            self._stamp_class(cover, centres[chosen] - low, radii[chosen])
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), cover

    def _stamp_class(self, cover, centres, radii):
        """Stamp beads of about one radius, all in one go."""
        step = self.step.astype(np.float32)
        centres, radii = centres.astype(np.float32), radii.astype(np.float32)
        limit = radii.max() + 0.5 * self.pixel
        half = np.ceil(limit / step).astype(int)
        offsets = np.stack(np.meshgrid(*(np.arange(-h, h + 1) for h in half), indexing="ij"), -1).reshape(-1, 3)
        offsets = offsets[np.linalg.norm((np.abs(offsets) - 0.5).clip(0) * step, axis=1) < limit]
        chunk = max(1, 400_000 // len(offsets))
        for first in range(0, len(centres), chunk):
            centre, radius = centres[first : first + chunk, None], radii[first : first + chunk, None]
            index = np.rint(centre).astype(np.int32) + offsets
            delta = (index - centre) * step
            distance = np.sqrt(np.einsum("nkc,nkc->nk", delta, delta))
            value = np.clip((radius - distance) / self.pixel + 0.5, 0, 1).astype(np.float32)
            inside = np.all((index >= 0) & (index < cover.shape), axis=2) & (value > 0)
            flat = np.ravel_multi_index(tuple(index[inside].T), cover.shape)
            np.maximum.at(cover.reshape(-1), flat, value[inside])

    def slices(self, fine) -> np.ndarray:
        """Average sub-slices into slices: (Zf, ...) to (Z, ...)."""
        return fine.reshape(-1, self.subslices, *fine.shape[1:]).mean(axis=1)
