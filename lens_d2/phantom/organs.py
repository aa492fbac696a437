"""Soft organs of chest and belly, as blobs and strings of beads in the order of painting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .shapes import Blob, tube, union
from .space import Waves
from .torso import Torso


@dataclass(frozen=True)
class Part:
    """A piece of anatomy of one tissue.

    Attributes:
        organ: name in tables and clearances.
        tissue: key of ``tissue.TISSUES``.
        shape: a function of x, y, z (see ``shapes``), or (n, 4) beads.
        low, high: corners of the box that holds a shape, mm.
        fine: whether to evaluate it at every voxel rather than on the coarse lattice.
    """

    organ: str
    tissue: str
    shape: Any
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    fine: bool = False

    @property
    def is_beads(self) -> bool:
        """Whether the shape is a string of beads."""
        return isinstance(self.shape, np.ndarray)


def merged(parts: list[Part]) -> list[Part]:
    """Join the beads of each organ and tissue to one part, at the place of the first of them."""
    groups: dict = {}
    for number, part in enumerate(parts):
        groups.setdefault((part.organ, part.tissue) if part.is_beads else number, []).append(part)
    return [
        replace(same[0], shape=np.vstack([p.shape for p in same])) if same[0].is_beads else same[0]
        for same in groups.values()
    ]


def blob(rng, centre, radii, jitter=3.0, size=0.07, wave=0.05, tilt=0.0) -> Blob:
    """Draw a blob.

    Args:
        rng: generator.
        centre, radii: (3,) mean, mm.
        jitter: deviation of its place, mm.
        size: deviation of the logarithm of its size.
        wave: deviation of its surface, in units of the mean radius.
        tilt: turn about x, radians.
    """
    centre = np.asarray(centre, float) + rng.normal(0, jitter, 3)
    radii = np.asarray(radii, float) * np.exp(rng.normal(0, size)) * np.exp(rng.normal(0, size / 2, 3))
    angle = rng.normal(0, 0.08, 3)
    rotation = np.array(
        [[1, -angle[2], angle[1]], [angle[2], 1, -angle[0] - tilt], [-angle[1], angle[0] + tilt, 1]]
    )
    rotation /= np.linalg.norm(rotation, axis=1, keepdims=True)
    return Blob(centre, radii, rotation, Waves.random(rng, wave, 2.6 * radii.mean()))


def region(organ, tissue, shape, *blobs, fine=False) -> Part:
    """Part that lies within the boxes of some blobs."""
    lows, highs = zip(*(b.bounds for b in blobs), strict=True)
    return Part(organ, tissue, shape, np.min(lows, axis=0), np.max(highs, axis=0), fine)


def heart(rng, torso: Torso) -> list[Part]:
    """Draw the heart: fat of its sac, muscle and the four chambers."""
    sac = torso.heart
    frame, centre, radii = sac.rotation, sac.centre, sac.radii

    def inside(along, across, up, scale):
        return Blob(
            centre + along * frame[0] + across * frame[1] + up * frame[2], np.asarray(scale) * radii / 55, frame
        )

    muscle = Blob(centre, radii - 5, frame, Waves.random(rng, 0.03, 80))
    chambers = [
        ("heart", "blood", inside(14, 10, 2, (25, 17, 20))),
        ("heart", "pulmonary blood", inside(10, -19, 4, (30, 12, 24))),
        ("heart", "venous blood", inside(-34, -4, 4, (16, 21, 24))),
        ("heart", "blood", inside(-22, 22, 6, (20, 14, 20))),
    ]
    parts = [
        region("pericardium", "visceral fat", sac, sac),
        region("heart", "myocardium", muscle, muscle),
    ]
    for organ, tissue, chamber in chambers:
        parts.append(
            region(organ, tissue, lambda x, y, z, c=chamber: np.minimum(c(x, y, z), muscle(x, y, z) - 3), chamber)
        )
    return parts


def liver(rng, torso: Torso):
    """Draw the liver's parts, and its distance function for lesions and vessels."""
    right = blob(rng, (-70, -2, -64), (72, 80, 84), 4, 0.06)
    left = blob(rng, (6, -44, -36), (68, 33, 40), 5, 0.12)
    hollow = blob(rng, (-40, 42, -125), (42, 34, 60), 3)
    fissure = blob(rng, (-6, -58, -70), (3, 22, 24), 3, wave=0.0)

    def distance(x, y, z):
        body = union(right(x, y, z), left(x, y, z), softness=16.0)
        body = np.minimum(np.minimum(body, -hollow(x, y, z)), -fissure(x, y, z))
        return np.minimum(body, torso.belly_room(x, y, z) - 0.5)

    return [region("liver", "liver", distance, right, left)], distance


def spleen(rng, torso: Torso):
    """Draw the spleen's parts, and its distance function."""
    outer = blob(rng, (97, 36, -46), (34, 44, 50), 3, 0.12)
    hilum = blob(rng, (58, 8, -46), (44, 46, 52), 3)

    def distance(x, y, z):
        return np.minimum(np.minimum(outer(x, y, z), -hilum(x, y, z)), torso.belly_room(x, y, z))

    return [region("spleen", "spleen", distance, outer)], distance


def stomach(rng, torso: Torso) -> list[Part]:
    """Draw the stomach's wall, content and gas; three tenths of the patients have drunk contrast."""
    blobs = [
        blob(rng, (62, 6, -30), (33, 36, 36), 4, 0.12),
        blob(rng, (56, -32, -72), (25, 27, 48), 5, 0.12),
        blob(rng, (14, -46, -104), (40, 18, 20), 5, 0.12),
    ]
    wall = float(rng.uniform(3.0, 5.0))
    level = float(rng.uniform(-62, -30))
    folds = Waves.random(rng, 1.3, 17, 5)

    def outer(x, y, z):
        body = union(*(b(x, y, z) for b in blobs), softness=10.0)
        return np.minimum(body, torso.belly_room(x, y, z) - 1)

    def lumen(x, y, z):
        return outer(x, y, z) - wall + folds(x, y, z)

    def gas(x, y, z):
        return np.minimum(lumen(x, y, z), level - y)

    content = "oral contrast" if rng.random() < 0.3 else "bowel fluid"
    return [
        region("stomach", "bowel wall", outer, *blobs),
        region("stomach", content, lumen, *blobs),
        region("stomach", "gas", gas, *blobs),
    ]


def kidneys(rng):
    """Draw both kidneys (fat, cortex, medulla, pelvis), and their distance functions."""
    parts, outer = [], []
    for side, centre in ((-1, (-58, 38, -128)), (1, (60, 38, -112))):
        body = blob(rng, centre, (27, 25, 54), 4, 0.07, 0.035, tilt=0.22)
        middle = Blob(body.centre - [side * 3, 0, 0], body.radii * [0.7, 0.7, 0.82], body.rotation, body.waves)
        sinus = Blob(body.centre - [side * 11, 4, 0], body.radii * [0.56, 0.40, 0.5], body.rotation)
        pelvis = tube(
            np.array(
                [
                    body.centre + [-side * 7, -2, 14],
                    body.centre + [-side * 14, -4, 2],
                    body.centre + [-side * 30, -8, -30],
                ]
            ),
            [3.5, 6.0, 2.5],
        )
        pyramids = Waves.random(rng, 4.0, 24, 5)

        def cortex(x, y, z, body=body, sinus=sinus):
            return np.minimum(body(x, y, z), -(sinus(x, y, z) - 1.0) * 1.0)

        def medulla(x, y, z, middle=middle, pyramids=pyramids, sinus=sinus):
            return np.minimum(middle(x, y, z) + pyramids(x, y, z), -sinus(x, y, z))

        gap = Blob(body.centre, body.radii + [9, 8, 10], body.rotation)
        parts.append(region("perirenal fat", "visceral fat", gap, gap))
        parts.append(region("kidney", "kidney cortex", cortex, body))
        parts.append(region("kidney", "kidney medulla", medulla, middle))
        parts.append(Part("renal pelvis", "urine", pelvis))
        outer.append(body)
    return parts, outer


def small_organs(rng) -> list[Part]:
    """Draw gallbladder, pancreas and adrenal glands."""
    bladder = blob(rng, (-46, -38, -100), (14, 17, 27), 4, 0.15)
    shift = rng.normal(0, 3, 3)
    pancreas = tube(
        np.array(
            [(-26, -20, -128), (-24, -20, -112), (-4, -25, -102), (22, -16, -96), (48, 4, -84), (74, 18, -74)]
        )
        + shift,
        np.array([10.5, 12.5, 8.5, 8.5, 8.0, 6.0]) * rng.uniform(0.8, 1.1),
    )
    pancreas[:, 3] *= 1 + 0.16 * np.sin(np.arange(len(pancreas)) * 1.9 + rng.uniform(0, 6))
    parts = [
        region("gallbladder", "bowel wall", bladder, bladder),
        region("gallbladder", "bile", lambda x, y, z: bladder(x, y, z) - 1.5, bladder),
        Part("pancreas", "pancreas", pancreas),
    ]
    for side, (x, y, z) in ((-1, (-34.0, 25.0, -78.0)), (1, (40.0, 22.0, -76.0))):
        top = np.array([x, y, z]) + rng.normal(0, 2, 3)
        limbs = [
            tube(np.array([top + [0, -9, 0], top + [0, -1, -5], top + [side * 5, 9, -15]]), [2.6, 3.0, 2.0]),
            tube(np.array([top + [0, -1, -5], top + [-side * 5, 9, -15]]), [2.8, 2.0]),
        ]
        parts.append(Part("adrenal", "adrenal", np.vstack(limbs)))
    return parts


def belly_walls(rng) -> list[Part]:
    """Draw psoas, quadratus and the crura, which lie inside the cavity."""
    parts = []
    for side in (-1, 1):
        parts.append(
            Part(
                "muscle",
                "muscle",
                tube(
                    [(side * 24, 38, -70), (side * 33, 40, -120), (side * 42, 34, -170), (side * 50, 24, -240)],
                    [5, 13, 18, 21],
                ),
            )
        )
        parts.append(
            Part(
                "muscle",
                "muscle",
                tube([(side * 52, 62, -90), (side * 62, 62, -140), (side * 70, 58, -220)], [7, 11, 12]),
            )
        )
        parts.append(
            Part(
                "crus",
                "muscle",
                tube(
                    np.array(
                        [(side * 20, 30, -25), (side * 17, 19, -60), (side * 15, 17, -100), (side * 12, 20, -130)]
                    )
                    + rng.normal(0, 1.5, 3),
                    [3, 5.5, 5, 3.5],
                ),
            )
        )
    return parts


def bowel(rng) -> list[Part]:
    """Draw the colon with faeces and gas, and loops of small bowel with fluid, gas or contrast."""
    parts: list[Part] = []
    j = lambda *p: np.array(p) + rng.normal(0, 5, (len(p), 3))  # noqa: E731
    colon = [
        (j((-96, 14, -205), (-98, 12, -170), (-94, 4, -142), (-80, -20, -128)), rng.uniform(18, 24)),
        (
            j((-80, -22, -128), (-55, -62, -132), (-5, -74, -138), (45, -66, -128), (80, -35, -104), (98, 0, -92)),
            rng.uniform(14, 21),
        ),
        (j((98, 2, -92), (106, 26, -120), (106, 28, -165), (100, 20, -215)), rng.uniform(11, 17)),
    ]
    for path, radius in colon:
        beads = tube(path, radius)
        beads[:, 3] *= 1 + 0.13 * np.sin(np.arange(len(beads)) * rng.uniform(0.9, 1.5))
        parts += lumen_parts(rng, "colon", beads, 2.6, [("faeces", 0.55), ("gas", 0.25), ("bowel fluid", 0.2)], 9)
    duodenum = tube(
        j((-12, -40, -104), (-36, -28, -106), (-42, -12, -128), (-30, -8, -150), (0, -10, -150)) * 1.0, 10.5
    )
    parts += lumen_parts(rng, "small bowel", duodenum, 2.6, SMALL_BOWEL, 8)
    for path in _loops(rng):
        beads = tube(path, rng.uniform(9.5, 14.5, len(path)))
        parts += lumen_parts(rng, "small bowel", beads, rng.uniform(2.2, 3.4), SMALL_BOWEL, 10)
    return parts


SMALL_BOWEL = [("bowel fluid", 0.5), ("bowel wall", 0.2), ("oral contrast", 0.18), ("gas", 0.12)]


def _loops(rng):
    """Paths of small-bowel loops: jittered lattice points joined to their nearest free neighbour."""
    grid = np.stack(np.meshgrid(np.arange(-68, 80, 29), (-52, -24), np.arange(-228, -118, 26), indexing="ij"), -1)
    points = grid.reshape(-1, 3) + rng.normal(0, 4.5, (grid.size // 3, 3))
    points = points[rng.random(len(points)) < 0.92]
    free = np.ones(len(points), bool)
    paths = []
    while free.sum() > 3:
        current = int(rng.choice(np.flatnonzero(free)))
        path = []
        while len(path) < 9:
            path.append(points[current])
            free[current] = False
            reach = np.where(free, np.linalg.norm(points - points[current], axis=1), np.inf)
            current = int(np.argmin(reach))
            if reach[current] > 42:
                break
        if len(path) > 2:
            paths.append(np.array(path))
    return paths


def lumen_parts(rng, organ, beads, wall, contents, run) -> list[Part]:
    """Draw a tube's wall and content; gas rises to the front.

    Args:
        rng: generator.
        organ: name of the parts.
        beads: (n, 4) of the tube.
        wall: thickness, mm.
        contents: tissues and their shares.
        run: length of one content, in radii.
    """
    parts = [Part(organ, "bowel wall", beads)]
    inner = beads.copy()
    inner[:, 3] = np.maximum(beads[:, 3] - wall, 1.0)
    names, weights = zip(*contents, strict=True)
    pieces = max(1, len(beads) // (2 * run))
    chosen = rng.choice(len(names), pieces, p=weights)
    which = np.minimum(np.arange(len(beads)) * pieces // len(beads), pieces - 1)
    for number, name in enumerate(names):
        part = inner[chosen[which] == number]
        if not len(part) or name == "bowel wall":
            continue
        if name == "gas":
            parts.append(Part(organ, "bowel fluid", part))
            part = part + [0, -0.35, 0, 0] * part[:, 3:] - [0, 0, 0, 1] * (0.3 * part[:, 3:])
        parts.append(Part(organ, name, part))
    return parts
