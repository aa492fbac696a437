"""Great vessels, airways and the trees of vessels in lungs, liver and mesentery, as strings of beads."""

from __future__ import annotations

import numpy as np

from .organs import Part
from .shapes import grow_tree, tube
from .torso import Torso

# fmt: off
AORTA = ((6, -12, 52), (-10, -18, 78), (-14, -15, 104), (-3, -4, 123), (15, 12, 124), (26, 24, 104), (27, 24, 50),
         (22, 22, 0), (13, 14, -50), (7, 8, -100), (5, 8, -150), (4, 10, -188))
AORTA_RADII = (15, 15.5, 15, 13.5, 12.5, 12.5, 12, 11.5, 11, 10, 9, 8.5)
# on each side, -1 right and 1 left: organ, tissue, radius, nodes, x away from the middle; None: the aorta's end
PAIRS = (
    ("artery", "blood", 5.2, (None, (20, 6, -215), (34, 2, -250))),
    ("artery", "blood", 2.8, ((0, 8, -112), (24, 18, -116), (44, 30, -118))),
    ("vein", "venous blood", 4.4, ((0, 8, -114), (22, 10, -112), (46, 30, -116))),
)
# organ, tissue, radius or radii, spacing of the beads, nodes
SINGLE = (
    ("artery", "blood", 3.0, 0.6, ((7, 3, -88), (8, -12, -86), (22, -14, -84), (40, 2, -76))),  # coeliac, splenic
    ("artery", "blood", 2.8, 0.6, ((8, -12, -86), (-12, -20, -88), (-30, -20, -82))),  # hepatic
    ("artery", "blood", 3.4, 0.6, ((6, 2, -100), (4, -14, -116), (4, -24, -150), (0, -28, -190))),  # mesenteric
    ("artery", "blood", 6.0, 0.6, ((-4, -4, 123), (-16, -8, 150), (-26, -6, 185))),  # to the head and arms
    ("artery", "blood", 4.2, 0.6, ((8, 6, 125), (16, 2, 150), (22, 4, 185))),
    ("artery", "blood", 4.6, 0.6, ((16, 12, 124), (28, 14, 150), (36, 12, 180))),
    ("vena cava", "venous blood", (9, 9.5, 10.5, 11, 12, 13), 0.5,
     ((-15, 12, -190), (-16, 10, -140), (-19, 8, -90), (-22, 2, -40), (-23, -6, -4), (-22, -12, 14))),
    ("vena cava", "venous blood", 8.5, 0.4, ((-26, -14, 48), (-27, -14, 90), (-26, -16, 128), (-30, -14, 180))),
    ("vein", "venous blood", 6.0, 0.6, ((-26, -16, 130), (-2, -30, 138), (24, -22, 152), (34, -10, 176))),
    ("vein", "venous blood", 3.8, 0.6,  # azygos
     ((-8, 20, -60), (-9, 19, 20), (-9, 18, 90), (-20, 2, 104), (-26, -10, 102))),
    ("pulmonary artery", "pulmonary blood", (13, 13.5, 12), 0.4, ((14, -34, 60), (15, -30, 78), (18, -14, 92))),
    ("pulmonary artery", "pulmonary blood", (11.5, 10.5, 8.5), 0.4, ((15, -18, 86), (-6, -8, 86), (-36, 2, 80))),
    ("pulmonary artery", "pulmonary blood", (11, 10, 8), 0.4, ((18, -14, 92), (30, 2, 94), (40, 12, 86))),
    ("portal vein", "portal blood", (3.6, 5, 6, 6.8, 6.5, 5), 0.6,
     ((-2, -24, -190), (-4, -22, -150), (-6, -18, -112), (-22, -16, -86), (-40, -14, -70), (-58, -6, -62))),
    ("portal vein", "portal blood", 4.0, 0.6, ((-6, -18, -106), (14, -6, -96), (44, 10, -80), (72, 22, -64))),
    ("oesophagus", "oesophagus", 7.6, 0.6,
     ((4, 12, 185), (3, 15, 130), (6, 18, 80), (10, 14, 30), (16, 4, -8), (34, 0, -34))),
)
# fmt: on


def great_vessels(rng) -> list[Part]:
    """Draw aorta and large branches, venae cavae, portal system, pulmonary trunk, and the oesophagus."""

    def moved(nodes):
        return np.array(nodes, float) + rng.normal(0, 1.6, 3) + rng.normal(0, 0.8, (len(nodes), 3))

    width = rng.uniform(0.88, 1.15)
    aorta = moved(AORTA)
    parts = [Part("aorta", "blood", tube(aorta, np.array(AORTA_RADII) * width, 0.5))]
    for side in (-1, 1):
        for organ, tissue, radius, nodes in PAIRS:
            nodes = [aorta[-1] if n is None else (side * n[0], *n[1:]) for n in nodes]
            parts.append(Part(organ, tissue, tube(moved(nodes), radius)))
    for organ, tissue, radii, spacing, nodes in SINGLE:
        path = moved(nodes)
        varied = np.array(radii) * rng.uniform(0.88, 1.1)
        parts.append(Part(organ, tissue, tube(path, varied, spacing)))
    return parts


def airways(rng) -> list[Part]:
    """Draw walls, then lumina of trachea and bronchi, and in some a little gas in the oesophagus."""
    j = lambda *points: np.array(points, float) + rng.normal(0, 1.2, 3)  # noqa: E731
    carina = np.array([0.0, 6.0, 98.0]) + rng.normal(0, 1.5, 3)
    tubes = [
        tube(np.array([carina + [1, -8, 90], carina + [0, -2, 40], carina]), 9.0 * rng.uniform(0.88, 1.1), 0.4),
        tube(np.array([carina, carina + [-22, 3, -17], carina + [-40, 8, -32]]), [7.5, 6.6, 5.2], 0.4),
        tube(np.array([carina, carina + [24, 5, -17], carina + [42, 10, -28]]), [7.0, 6.2, 5.0], 0.4),
    ]
    for side in (-1, 1):
        hilum = carina + [side * 41, 9, -30]
        ends = hilum + np.array(
            [[side * 22, -22, -26], [side * 24, 26, -40], [side * 24, 2, 32], [side * 30, 14, -20]]
        )
        for end in ends:
            tubes.append(
                tube(np.array([hilum, (hilum + end) / 2 + rng.normal(0, 3, 3), end]), [3.9, 2.6, 1.3], 0.4)
            )
    walls = [t + [0, 0, 0, 0.7] + [0, 0, 0, 0.12] * t[:, 3:] for t in tubes]
    parts = [Part("airway", "airway wall", w) for w in [np.vstack(walls)]]
    parts.append(Part("airway", "air", np.vstack(tubes)))
    if rng.random() < 0.4:
        parts.append(Part("oesophagus", "gas", tube(j((3, 14, 128), (5, 17, 100)), 2.4)))
    return parts


def scatter(rng, distance, low, high, count, depth=3.0, tries=9):
    """Draw at most ``count`` points of a box that lie at least ``depth`` mm inside a shape."""
    points = rng.uniform(low, high, (count * tries, 3))
    points = points[distance(*points.T) > depth]
    return points[:count]


def lung_trees(rng, torso: Torso, count: int = 150) -> list[Part]:
    """Draw the arteries and veins of both lungs, which thin out from the hila to the periphery."""
    trees = []
    for side in (-1, 1):
        low = (-145, -95, -70) if side < 0 else (12, -95, -70)
        high = (-12, 90, 178) if side < 0 else (145, 90, 178)
        targets = scatter(rng, torso.lungs, low, high, 2 * count, depth=4.0)
        arteries, veins = targets[::2], targets[1::2]
        trees.append(grow_tree((side * 40, 8, 84), arteries, 0.82, 2.3, rng=rng))
        trees.append(grow_tree((side * 34, 4, 58), veins, 0.8, 2.35, rng=rng))
    return [Part("lung vessel", "pulmonary blood", np.vstack(trees))]


def liver_trees(rng, liver) -> list[Part]:
    """Draw portal branches from the hilum and hepatic veins from the vena cava."""
    low, high = (-140, -90, -150), (75, 85, 5)
    targets = scatter(rng, liver, low, high, 110, depth=7.0)
    portal = grow_tree((-44, -12, -68), targets[:60], 1.0, 2.6, rng=rng)
    hepatic = grow_tree((-24, 2, -22), targets[60:], 1.1, 2.4, rng=rng)
    return [Part("liver vessel", "portal blood", portal), Part("liver vessel", "portal blood", hepatic)]


def mesentery(rng) -> list[Part]:
    """Draw branches of the superior mesenteric vessels among the loops of the bowel."""
    targets = np.column_stack([rng.uniform(-80, 85, 90), rng.uniform(-66, -14, 90), rng.uniform(-230, -112, 90)])
    veins = grow_tree((-3, -26, -130), targets[:50], 0.9, 2.6, rng=rng)
    arteries = grow_tree((4, -26, -130), targets[50:], 0.8, 2.7, rng=rng)
    return [Part("mesenteric vessel", "portal blood", veins), Part("mesenteric vessel", "blood", arteries)]
