"""Spaces: the voxels of a scan, the pose that maps them into a patient's anatomy, and the canvas to paint on.

Scan space is LPS millimetres on the table (x to the patient's left, y to the back, z to the head). Anatomy space
is the same frame for the patient at rest and at reference size. The shapes of ``anatomy.py`` are defined there, so
that a lesion keeps its place from study to study.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Waves:
    """A smooth random function of position: a sum of sines, zero mean.

    Attributes:
        vectors: (n, 3) wave vectors in radians per mm.
        phases: (n,) radians.
        amplitudes: (n,), or (n, 3) for a displacement.
    """

    vectors: np.ndarray
    phases: np.ndarray
    amplitudes: np.ndarray

    @classmethod
    def random(cls, rng, amplitude, wavelength, count=4):
        """Draw waves.

        Args:
            rng: generator.
            amplitude: their joint standard deviation.
            wavelength: mean, mm; they differ from it by a factor of 1.6 at most.
            count: their number.
        """
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = wavelength * rng.uniform(0.63, 1.6, (count, 1))
        vectors = 2 * np.pi * directions / lengths
        sizes = rng.uniform(0.6, 1.4, count) * amplitude * np.sqrt(2 / count)
        return cls(vectors, rng.uniform(0, 2 * np.pi, count), sizes)

    @classmethod
    def displacement(cls, rng, amplitude, wavelength, count=3):
        """Draw waves for each of x, y and z, as one function that gives all three."""
        parts = [cls.random(rng, amplitude, wavelength, count) for _ in range(3)]
        amplitudes = np.zeros((3 * count, 3))
        for axis, part in enumerate(parts):
            amplitudes[axis * count : (axis + 1) * count, axis] = part.amplitudes
        vectors, phases = (np.concatenate([getattr(p, name) for p in parts]) for name in ("vectors", "phases"))
        return cls(vectors, phases, amplitudes)

    def at(self, points) -> np.ndarray:
        """Values at (..., 3) points, float32, by one matrix product for all waves."""
        angles = np.asarray(points, np.float32) @ self.vectors.T.astype(np.float32)
        angles += self.phases.astype(np.float32)
        return np.sin(angles, out=angles) @ self.amplitudes.astype(np.float32)

    def __call__(self, x, y, z):
        """Values at arrays of coordinates that broadcast against each other."""
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
        """(3,) mm from one voxel to the next along x, y, z, with signs."""
        return np.asarray(self.spacing) * np.asarray(self.direction)

    def to_scan(self, index) -> np.ndarray:
        """(..., 3) fractional voxel indices x, y, z to scan millimetres."""
        return np.asarray(self.origin) + np.asarray(index) * self.step

    def to_index(self, points) -> np.ndarray:
        """(..., 3) scan millimetres to fractional voxel indices x, y, z."""
        return (np.asarray(points) - np.asarray(self.origin)) / self.step


@dataclass(frozen=True)
class Pose:
    """Map from scan space to anatomy space: turn and shift on the table, breathing, and the patient's own build.

    Attributes:
        scale: (3,) the patient's size along x, y, z, relative to the reference body.
        angles: (3,) small rotations about x, y, z in radians.
        shift: (3,) of the body on the table, mm.
        breath: depth of the diaphragm below its reference height, mm.
        build: the patient's own displacement (see ``Waves.displacement``), mm, or None.
    """

    scale: np.ndarray
    angles: np.ndarray
    shift: np.ndarray
    breath: float
    build: Waves | None = None

    def _rotation(self):
        a, b, c = self.angles
        return np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]])  # first order: the angles are a few degrees

    def to_anatomy(self, points) -> np.ndarray:
        """(..., 3) scan millimetres to anatomy millimetres, float32."""
        turned = ((np.asarray(points) - self.shift) @ self._rotation().T / self.scale).astype(np.float32)
        moved = turned + self.build.at(turned) if self.build is not None else turned.copy()
        moved[..., 2] += np.float32(self.breath) * np.exp(-np.square((turned[..., 2] + 30) / 80))
        return moved

    def to_scan(self, points, tolerance: float = 0.01, iterations: int = 50) -> np.ndarray:
        """(..., 3) anatomy millimetres to scan millimetres, by fixed-point iteration to within ``tolerance``."""
        points = np.asarray(points, dtype=np.float64)
        guess = points * self.scale + self.shift
        for _ in range(iterations):
            off = points - self.to_anatomy(guess)
            guess = guess + off * self.scale
            if np.abs(off).max(initial=0.0) < tolerance:
                break
        return guess


@dataclass(frozen=True)
class Window:
    """A part of a canvas.

    Attributes:
        z: fine slices.
        y, x: blocks of ``factor`` pixels along y and x.
        factor: pixels of a block.
    """

    z: slice
    y: slice
    x: slice
    factor: int

    @property
    def index(self) -> tuple[slice, slice, slice]:
        """The same part as slices of fine voxels z, y, x."""
        return self.z, *(slice(s.start * self.factor, s.stop * self.factor) for s in (self.y, self.x))


class Canvas:
    """HU on a fine grid, several sub-slices a slice, onto which shapes are painted with soft edges.

    Smooth shapes are evaluated on a coarse lattice (one node per block of ``factor`` pixels) and refined linearly,
    slice by slice, which makes a torso cheap; small ones are evaluated at every voxel.

    Args:
        grid: of the scan; H and W must be multiples of ``factor``.
        pose: scan space to anatomy space.
        subslices: fine slices that are averaged to one slice (partial volume).
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
        self._stride = stride = max(1, int(node_mm / self.step[0]))
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
        """The window of the whole canvas."""
        _, height, width = self.hu.shape
        f = self.factor
        return Window(slice(0, len(self.hu)), slice(0, height // f), slice(0, width // f), f)

    def window(self, low, high) -> Window | None:
        """The smallest window that holds a box of anatomy space with corners low and high; None if outside."""
        inside = np.ones(self.coarse.shape[1:], bool)
        reach = 0.7 * max(self.factor * self.pixel, self._stride * self.step[0])
        for axis, (a, b) in enumerate(zip(low, high, strict=True)):
            inside &= (self.coarse[axis] > a - reach) & (self.coarse[axis] < b + reach)
        if not inside.any():
            return None
        spans = []
        for axis, size in ((1, self.hu.shape[1] // self.factor), (2, self.hu.shape[2] // self.factor)):
            hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
            spans.append(slice(max(hit[0] - 1, 0), min(hit[-1], size)))
        levels = inside.any(axis=(1, 2))
        rows = np.flatnonzero(levels[self._below] | levels[self._below + 1])
        if not len(rows) or any(s.start >= s.stop for s in spans):
            return None
        return Window(slice(rows[0], rows[-1] + 1), *spans, self.factor)

    def nodes(self, window: Window):
        """Coordinates x, y, z of the nodes around a window, one ring more than its blocks."""
        y, x = (slice(s.start, s.stop + 2) for s in (window.y, window.x))
        return self.coarse[:, :, y, x]

    def level(self, values, k: int) -> np.ndarray:
        """Values at ``nodes`` of a window, at the height of fine slice ``k``."""
        below, mix = self._below[k], self._mix[k]
        return (values[below] + mix * (values[below + 1] - values[below])).astype(np.float32, copy=False)

    def spread(self, level) -> np.ndarray:
        """A ``level`` of a window refined to its pixels."""
        f, (rows, columns) = self.factor, level.shape
        return cv2.resize(level, (columns * f, rows * f))[f : (rows - 1) * f, f : (columns - 1) * f]

    def planes(self, values, window: Window):
        """Yield values at ``nodes(window)`` refined to the window's fine slices, (h, w) each."""
        for k in range(window.z.start, window.z.stop):
            yield self.spread(self.level(values, k))

    def refine(self, values, window: Window) -> np.ndarray:
        """Values at ``nodes(window)`` refined to the window's fine voxels, linear between nodes."""
        return np.stack(list(self.planes(values, window)))

    def evaluate(self, shape, window: Window) -> np.ndarray:
        """A function of anatomy coordinates on every fine voxel of a window."""
        x, y, z = (self.refine(c, window) for c in self.nodes(window))
        return np.asarray(shape(x, y, z), np.float32)

    def coverage(self, distance, margin: float | None = None) -> np.ndarray:
        """Turn distances inside a surface, mm, into the share of each voxel that it fills, in place."""
        distance *= np.float32(1.0 / (margin or self.pixel))
        distance += np.float32(0.5)
        return np.clip(distance, 0.0, 1.0, out=distance)

    def blend(self, index, coverage, value) -> None:
        """Paint ``value`` (scalar or array, HU) over the share ``coverage`` of a part of the canvas."""
        target = self.hu[index]
        change = value - target
        change *= coverage
        change += target
        self.hu[index] = change

    def stamp(self, beads: np.ndarray):
        """Share of each fine voxel that strings of beads fill.

        Args:
            beads: (n, 4) x, y, z in anatomy space and radius, mm.

        Returns:
            Index of the part of the canvas around them and the coverage there, or None if no bead touches it.
        """
        heights, margin = self.coarse[2], beads[:, 3].max(initial=0.0) + 4.0
        beads = beads[(beads[:, 2] > heights.min() - margin) & (beads[:, 2] < heights.max() + margin)]
        if not len(beads):
            return None
        centres = self.grid.to_index(self.pose.to_scan(beads[:, :3], iterations=3))[:, ::-1]
        centres[:, 0] = (centres[:, 0] + 0.5) * self.subslices - 0.5
        reach = (beads[:, 3:] + self.pixel) / self.step
        near = np.all((centres > -reach) & (centres < np.array(self.hu.shape) + reach), axis=1)
        if not near.any():
            return None
        centres, radii, reach = centres[near], beads[near, 3], reach[near]
        low = np.maximum(np.floor((centres - reach).min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil((centres + reach).max(axis=0)) + 1, self.hu.shape).astype(int)
        # a margin all around, so that small beads need no test for the canvas' ends
        margin = 2 * np.ceil(2.7 * self.pixel / self.step).astype(int) + 3
        cover = np.zeros(high - low + 2 * margin, np.float32)
        inner = tuple(slice(m, -m) for m in margin)
        centres -= low
        large = radii > 2.2 * self.pixel
        for centre, radius in zip(centres[large], radii[large], strict=True):
            self._stamp_one(cover[inner], centre, radius)
        sizes = np.ceil(radii / self.pixel * 2)
        for size in np.unique(sizes[~large]):
            chosen = (sizes == size) & ~large
            self._stamp_many(
                cover, (centres[chosen] + margin).astype(np.float32), radii[chosen].astype(np.float32)
            )
        cover = np.clip(cover[inner], 0, 1)
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), cover

    def _stamp_one(self, cover, centre, radius):
        """Stamp a bead of several pixels."""
        reach = (radius + 0.5 * self.pixel) / self.step
        first = np.maximum(np.ceil(centre - reach), 0).astype(int)
        last = np.minimum(np.floor(centre + reach) + 1, cover.shape).astype(int)
        if (first >= last).any():
            return
        z, y, x = (
            np.square((np.arange(a, b) - c) * s).astype(np.float32)
            for a, b, c, s in zip(first, last, centre, self.step, strict=True)
        )
        value = (z[:, None] + y)[:, :, None] + x
        np.sqrt(value, out=value)
        value *= np.float32(-1 / self.pixel)
        value += np.float32(radius / self.pixel + 0.5)
        view = cover[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        np.maximum(view, value, out=view)

    def _stamp_many(self, cover, centres, radii):
        """Stamp small beads of about one radius, all in one go."""
        half = np.ceil((radii.max() + 0.5 * self.pixel) / self.step).astype(int)
        base = np.rint(centres).astype(np.int32)
        squares, places = np.float32(0), base @ np.array([cover.shape[1] * cover.shape[2], cover.shape[2], 1])
        places = places.reshape(-1, 1, 1, 1)
        for axis, stride in enumerate((cover.shape[1] * cover.shape[2], cover.shape[2], 1)):
            steps = np.arange(-half[axis], half[axis] + 1)
            shape = [-1 if a == axis else 1 for a in range(3)]
            off = ((base - centres)[:, axis, None] + steps.astype(np.float32)) * np.float32(self.step[axis])
            squares = squares + np.square(off).reshape(-1, *(len(steps) if n < 0 else 1 for n in shape))
            places = places + (steps * stride).reshape(1, *shape)
        value = radii[:, None, None, None] - np.sqrt(squares)
        value = value * np.float32(1 / self.pixel) + np.float32(0.5)
        inside = value > 0
        np.maximum.at(cover.reshape(-1), places[inside], value[inside])

    def slices(self, fine) -> np.ndarray:
        """Average sub-slices into slices: (Zf, ...) to (Z, ...)."""
        return fine.reshape(-1, self.subslices, *fine.shape[1:]).mean(axis=1)
