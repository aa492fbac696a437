"""Implicit shapes and strings of beads, in anatomy space (LPS mm).

A shape is a function of arrays x, y, z that gives the distance to its surface in mm, positive inside. Far from the
surface only the sign counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..structures.boxes import expand_ranges
from .space import Waves


@dataclass(frozen=True)
class Blob:
    """An ellipsoid, turned and deformed by smooth waves.

    Attributes:
        centre, radii: (3,) mm.
        rotation: (3, 3) rows are the ellipsoid's axes.
        waves: displacement of the surface in units of the mean radius, as a function of position.
    """

    centre: np.ndarray
    radii: np.ndarray
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    waves: Waves | None = None

    @property
    def mean_radius(self) -> float:
        """Geometric mean of the radii, mm."""
        return float(np.prod(self.radii) ** (1 / 3))

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners low and high of a box that holds the shape, waves included, mm."""
        grown = np.asarray(self.radii) * 1.35
        reach = np.sqrt(((np.asarray(self.rotation) * grown[:, None]) ** 2).sum(axis=0))
        return np.asarray(self.centre) - reach, np.asarray(self.centre) + reach

    def __call__(self, x, y, z):
        """Distance to the surface, mm, at arrays of coordinates."""
        x, y, z = (c - np.float32(m) for c, m in zip((x, y, z), self.centre, strict=True))
        squares, slopes = 1e-6, 1e-6
        for axis, radius in zip(np.asarray(self.rotation, np.float32), self.radii, strict=True):
            along = (axis[0] * x + axis[1] * y + axis[2] * z) / np.float32(radius)
            along *= along
            squares = squares + along
            slopes = slopes + along / np.float32(radius**2)
        rho = np.sqrt(squares)
        distance = (1 - rho) * rho / np.sqrt(slopes)
        if self.waves is not None:
            distance += np.float32(self.mean_radius) * self.waves(x, y, z)
        return distance


def ellipse_distance(x, y, half_x, half_y, squareness: float = 0.0):
    """Distance inside an ellipse, or a rectangle with round corners as ``squareness`` goes from 0 to 1."""
    u, v = x / half_x, y / half_y
    uu, vv = u * u, v * v
    if not squareness:
        rho = np.sqrt(uu + vv + np.float32(1e-4))
        return (1 - rho) * rho / np.maximum(np.hypot(u / half_x, v / half_y), 1e-3)
    s = np.float32(squareness**2)
    cut_u, cut_v = np.minimum(uu, 1.4), np.minimum(vv, 1.4)  # beyond, the rounding would close in again
    rho = np.sqrt(np.maximum(uu + vv - s * cut_u * cut_v, 1e-4))
    slope = np.hypot(u * (1 - s * cut_v) / half_x, v * (1 - s * cut_u) / half_y)
    return (1 - rho) * rho / np.maximum(slope, 1e-3)


def union(*distances, softness: float = 0.0):
    """Distance inside the union of shapes; a positive softness, mm, rounds the seams."""
    total = distances[0]
    for other in distances[1:]:
        if softness:
            blend = np.clip(0.5 + 0.5 * (total - other) / softness, 0, 1)
            total = other + (total - other) * blend + softness * blend * (1 - blend)
        else:
            total = np.maximum(total, other)
    return total


def random_rotation(rng) -> np.ndarray:
    """Draw a (3, 3) rotation uniformly."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def tube(points, radii, spacing: float = 0.6) -> np.ndarray:
    """Beads along a smooth curve.

    Args:
        points: (n, 3) nodes of the curve, mm.
        radii: scalar or (n,), mm.
        spacing: distance of beads in units of their radius.

    Returns:
        (m, 4) x, y, z, radius, mm.
    """
    points = np.asarray(points, dtype=float)
    radii = np.broadcast_to(np.asarray(radii, dtype=float), len(points))
    dense = (
        catmull_rom(np.column_stack([points, radii]), 8) if len(points) > 2 else np.column_stack([points, radii])
    )
    length = np.linalg.norm(np.diff(dense[:, :3], axis=0), axis=1)
    place = np.concatenate([[0], np.cumsum(length / (spacing * np.maximum(dense[1:, 3], 0.8)))])  # in beads
    at = np.linspace(0, place[-1], max(2, int(np.ceil(place[-1])) + 1))
    return np.column_stack([np.interp(at, place, dense[:, c]) for c in range(4)])


def catmull_rom(nodes, steps: int) -> np.ndarray:
    """Points on the Catmull-Rom spline through (n, k) nodes, ``steps`` of them a segment."""
    padded = np.vstack([2 * nodes[0] - nodes[1], nodes, 2 * nodes[-1] - nodes[-2]])
    t = (np.arange(steps) / steps)[:, None, None]
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.vstack([np.swapaxes(curve, 0, 1).reshape(-1, nodes.shape[1]), nodes[-1:]])


MAX_PIECES = 5  # from a tree to its next target
STEPS = [np.linspace(0, 1, n + 1, dtype=np.float32)[1:, None] for n in range(MAX_PIECES + 1)]


def grow_tree(root, targets, leaf_radius: float, exponent: float = 2.7, bend: float = 0.25, rng=None):
    """Beads of a branching, tapering tree of vessels.

    Targets are joined to the nearest point of the tree in the order of their distance from the root. Radii follow
    Murray's law from the number of leaves that a branch feeds.

    Args:
        root: (3,) start of the tree, mm.
        targets: (n, 3) ends of the twigs, mm.
        leaf_radius: of a twig, mm.
        exponent: of Murray's law.
        bend: of the branches, as a share of their length.
        rng: generator for the bends; straight branches without it.

    Returns:
        (m, 4) x, y, z, radius, mm.
    """
    root, targets = np.asarray(root, float), np.asarray(targets, float)
    order = np.argsort(np.linalg.norm(targets - root, axis=1))
    capacity = 1 + MAX_PIECES * len(targets)
    nodes, parent, filled = np.empty((capacity, 3), np.float32), np.full(capacity, -1), 1
    nodes[0] = root
    sideways = (rng.normal(size=targets.shape) if rng is not None else np.zeros(targets.shape)) * bend / 3
    for target, aside in zip(targets[order].astype(np.float32), sideways[order].astype(np.float32), strict=True):
        offset = nodes[:filled] - target
        reach = np.einsum("nc,nc->n", offset, offset)
        nearest = int(reach.argmin())
        length = float(reach[nearest]) ** 0.5
        pieces = min(max(int(length // 9), 1), MAX_PIECES)
        last, t = filled + pieces, STEPS[pieces]
        nodes[filled:last] = nodes[nearest] - t * offset[nearest] + t * (1 - t) * length * aside
        parent[filled:last] = np.arange(filled - 1, last - 1)
        parent[filled] = nearest
        filled = last
    nodes, parent = nodes[:filled], parent[:filled]
    leaves = np.ones(filled)
    leaves[np.unique(parent[1:])] = 0
    for child in range(filled - 1, 0, -1):
        leaves[parent[child]] += leaves[child]
    radii = leaf_radius * np.maximum(leaves, 1) ** (1 / exponent)
    return _string_beads(nodes[1:], nodes[parent[1:]], radii[1:], radii[parent[1:]])


def _string_beads(ends, starts, end_radii, start_radii):
    """(m, 4) beads along straight pieces, about a radius apart."""
    start_radii = np.minimum(start_radii, 1.3 * end_radii)
    length = np.linalg.norm(ends - starts, axis=1)
    counts = np.maximum(1, np.ceil(length / (0.9 * np.maximum(end_radii, 1.2)))).astype(int)
    piece, number = expand_ranges(np.ones_like(counts), counts)
    t = number / counts[piece]
    centres = starts[piece] + (ends - starts)[piece] * t[:, None]
    return np.column_stack([centres, start_radii[piece] + (end_radii - start_radii)[piece] * t])
