"""Mimics of lesions: calcifications, normal nodes, granulomas, scars, a second spleen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anatomy import Anatomy, Painter
from .lesions import ABDOMINAL_STATIONS, MEDIASTINAL_STATIONS, station_points
from .shapes import Blob, random_rotation, tube


@dataclass(frozen=True)
class Mimic:
    """A mimic, painted before the lesions and never annotated.

    Attributes:
        name: of its kind.
        shape: Blob, or (n, 4) beads.
        tissue: key of ``tissue.TISSUES``.
    """

    name: str
    shape: Blob | np.ndarray
    tissue: str

    def paint(self, painter: Painter) -> None:
        """Paint the mimic, if it touches the canvas."""
        canvas = painter.canvas
        if isinstance(self.shape, np.ndarray):
            painted = canvas.stamp(self.shape)
            if painted is None:
                return
            index, cover = painted
        else:
            window = canvas.window(*self.shape.bounds)
            if window is None:
                return
            index = window.index
            cover = canvas.coverage(canvas.evaluate(self.shape, window))
        painter.fill(index, cover, self.tissue)


def small_ball(rng, centre, radius, stretch=0.3) -> Blob:
    """Draw a turned ellipsoid whose radii deviate by ``stretch`` (of their logarithm) from ``radius``, mm."""
    radii = radius * np.exp(rng.normal(0, stretch, 3))
    return Blob(np.asarray(centre, float), radii, random_rotation(rng))


def normal_nodes(rng, anatomy: Anatomy) -> list[Mimic]:
    """Draw nodes of normal size: short axes of 2 to 5 mm, often longish."""
    found = []
    for stations in (MEDIASTINAL_STATIONS, ABDOMINAL_STATIONS):
        points, _ = station_points(rng, stations, rng.poisson(7))
        for point in points[anatomy.clearance(points) > 2]:
            found.append(Mimic("normal node", small_ball(rng, point, rng.uniform(1.6, 2.7), 0.35), "lymph node"))
    return found


def plaques(rng, anatomy: Anatomy) -> list[Mimic]:
    """Draw calcified plaques in the wall of the aorta, more with age."""
    aorta = [p.shape for p in anatomy.parts if p.organ == "aorta"][0]
    found = []
    for _ in range(rng.poisson(max(0, (anatomy.age - 45) / 4))):
        bead = aorta[rng.integers(len(aorta))]
        angle = rng.uniform(0, 2 * np.pi)
        centre = bead[:3] + bead[3] * np.array([np.cos(angle), np.sin(angle), 0])
        found.append(Mimic("plaque", small_ball(rng, centre, rng.uniform(1.0, 2.6), 0.4), "calcium"))
    return found


def lung_mimics(rng, anatomy: Anatomy) -> list[Mimic]:
    """Draw calcified granulomas and scars of the lungs."""
    points = rng.uniform((-140, -90, -70), (140, 90, 170), (500, 3)).astype(np.float32)
    depth = anatomy.torso.lungs(*points.T)
    inside, edge = points[depth > 6], points[(depth > 0.5) & (depth < 4)]
    found = []
    for point in inside[: rng.poisson(1.2)]:
        found.append(Mimic("granuloma", small_ball(rng, point, rng.uniform(1.2, 2.2), 0.1), "calcium"))
    for point in edge[: rng.poisson(2.5)]:
        direction = rng.normal(size=3) * (1, 1, 0.4)
        length = rng.uniform(10, 34)
        path = point + direction / np.linalg.norm(direction) * np.linspace(-0.5, 0.5, 4)[:, None] * length
        path += rng.normal(0, 1.2, path.shape)
        found.append(Mimic("scar", tube(path, rng.uniform(0.9, 2.0)), "scar"))
    return found


def belly_mimics(rng, anatomy: Anatomy) -> list[Mimic]:
    """Draw an accessory spleen, a gallstone, kidney stones and calcified nodes."""
    found = []
    if rng.random() < 0.2:
        point = np.array([78, 12, -62]) + rng.normal(0, 8, 3)
        if anatomy.clearance(point)[0] > 5:
            found.append(Mimic("accessory spleen", small_ball(rng, point, rng.uniform(4, 6.5), 0.1), "spleen"))
    if rng.random() < 0.18:
        bladder = [p for p in anatomy.parts if p.organ == "gallbladder"][0]
        centre = (bladder.low + bladder.high) / 2 + [0, 5, -4]
        found.append(Mimic("gallstone", small_ball(rng, centre, rng.uniform(2, 5), 0.15), "gallstone"))
    for side in ("right kidney", "left kidney"):
        if rng.random() < 0.12:
            centre = anatomy.solids[side].centre + rng.normal(0, 5, 3)
            found.append(Mimic("kidney stone", small_ball(rng, centre, rng.uniform(1.2, 2.5), 0.2), "calcium"))
    for _ in range(rng.poisson(1.0)):
        centre = np.array([rng.uniform(-90, 90), rng.uniform(-65, -20), rng.uniform(-215, -110)])
        found.append(Mimic("calcified node", small_ball(rng, centre, rng.uniform(1.5, 3), 0.2), "calcium"))
    return found


def random_mimics(rng, anatomy: Anatomy) -> list[Mimic]:
    """Draw all of a patient's mimics, the same in every study."""
    return [m for make in (normal_nodes, plaques, lung_mimics, belly_mimics) for m in make(rng, anatomy)]
