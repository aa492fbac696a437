"""The large surfaces of a torso, as functions of anatomy coordinates: skin, wall, cavity, diaphragm, lungs.

z = 0 is the top of the right diaphragm, about the tenth thoracic vertebra; the apices of the lungs are near
z = 180, the iliac crests near z = -210. y = 0 lies midway between breastbone and the tips of the spinous
processes of the reference body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import Blob, ellipse_distance, union

HEIGHTS = np.array([-260, -200, -120, -40, 60, 140, 200, 240], float)
HALF_WIDTHS = np.array([150, 142, 139, 146, 151, 149, 138, 130], float)
HALF_DEPTHS = np.array([94, 93, 94, 100, 104, 98, 88, 80], float)
SPINE_Y = 40.0
CANAL_Y = 62.0


@dataclass(frozen=True)
class Torso:
    """One patient's surfaces.

    Attributes:
        fat: (3,) thickness of the fat under the skin in front, at the sides and behind, mm.
        breasts: their height, mm (0 for a flat chest).
        belly: bulge of the front wall below the ribs, mm.
        wall: thickness of the muscular wall at the sides, mm.
        heart: Blob of the heart with its sac.
    """

    fat: np.ndarray
    breasts: float
    belly: float
    wall: float
    heart: Blob

    def muscle(self, x, y, z):
        """Depth below the outer surface of the muscular wall, mm."""
        half_x = np.interp(z, HEIGHTS, HALF_WIDTHS).astype(np.float32)
        half_y = np.interp(z, HEIGHTS, HALF_DEPTHS).astype(np.float32)
        bulge = self.belly * np.exp(-(((z + 130) / 70) ** 2)) * (y < 0)
        return ellipse_distance(x, y, half_x, half_y + bulge, 0.66)

    def fat_depth(self, x, y, z):
        """Thickness of the subcutaneous fat and skin, mm."""
        side = np.clip(np.abs(x) / 150, 0, 1) ** 2
        front = np.clip(-y / 100, 0, 1)
        behind = np.clip(y / 100, 0, 1)
        rest = np.clip(1 - front - behind, 0, 1)
        lower = np.clip(0.8 - z / 450, 0.62, 1.25)
        depth = (self.fat[0] * front + self.fat[1] * rest * (0.4 + 0.6 * side) + self.fat[2] * behind) * lower
        if self.breasts:
            mound = np.exp(-(((np.abs(x) - 72) / 48) ** 2) - ((z - 75) / 55) ** 2)
            depth = depth + self.breasts * mound * np.clip(-y / 60, 0, 1)
        return np.maximum(depth, 3.5)

    def skin(self, x, y, z):
        """Depth below the skin, mm."""
        return self.muscle(x, y, z) + self.fat_depth(x, y, z)

    def wall_depth(self, x, y, z):
        """Thickness of the muscular wall with the ribs in it, mm."""
        side = np.abs(x)
        posterior = np.clip((y - 10) / 45, 0, 1)
        erectors = 33 * posterior * np.exp(-((side / 46) ** 3))
        shoulder = np.clip((z - 60) / 70, 0, 1)
        latissimus = 15 * shoulder * np.clip((side - 30) / 40, 0, 1) * np.clip((y + 20) / 50, 0, 1)
        pectoral = 9 * shoulder * np.clip(-y / 50, 0, 1) * np.clip((side - 10) / 30, 0, 1)
        girdle = np.square(np.clip(z - 115, 0, 120)) * 0.0085
        # the belly's wall is thin between the two recti and at their outer edges
        belly = np.clip((-50 - z) / 40, 0, 1) * np.clip(-y / 45 - 0.4, 0, 1)
        recti = belly * (3 - 9 * np.exp(-np.square(side / 6)) - 6 * np.exp(-np.square((side - 66) / 9)))
        flanks = -0.18 * self.wall * np.clip((-60 - z) / 40, 0, 1) * np.clip(1 - np.abs(y) / 80, 0, 1)
        return self.wall + erectors + latissimus + pectoral + girdle + recti + flanks

    def cavity(self, x, y, z):
        """Depth inside the chest and belly, mm."""
        return self.muscle(x, y, z) - self.wall_depth(x, y, z)

    def diaphragm(self, x, y):
        """Height z of the diaphragm, mm."""
        heights = []
        for centre_x, centre_y, top in ((-66.0, -12.0, 0.0), (64.0, -8.0, -14.0)):
            dy = y - centre_y
            drop = 58 * ((x - centre_x) / 68) ** 2 + np.where(dy > 0, 78, 42) * (dy / 85) ** 2
            heights.append(top - np.minimum(drop, 110))
        return union(*heights, softness=12.0)

    def below_diaphragm(self, x, y, z):
        """Distance below the diaphragm, mm (positive in the belly)."""
        return (self.diaphragm(x, y) - z) * np.float32(0.75)

    def mediastinum(self, x, y, z):
        """Distance inside the mediastinum, between the lungs, mm."""
        half = np.interp(z, [0, 60, 100, 135, 190], [16, 25, 33, 30, 24]).astype(np.float32)
        column = ellipse_distance(x, y - 4, half, np.float32(44))
        spine = ellipse_distance(x, y - SPINE_Y - 6, np.float32(27), np.float32(26))
        septum = 4 + np.clip((z - 95) / 9, 0, 9) - np.abs(x) - np.clip((y + 30) * 0.5, 0, 60)
        return union(self.heart(x, y, z) + 3, column, spine, septum, softness=9.0)

    def lungs(self, x, y, z):
        """Distance inside the lungs, mm (right lung at x < 0)."""
        room = self.cavity(x, y, z) - 1.5
        return np.minimum(np.minimum(room, -self.mediastinum(x, y, z)), -2 - self.below_diaphragm(x, y, z))

    def belly_room(self, x, y, z):
        """Distance inside the part of the cavity below the diaphragm, mm."""
        return np.minimum(self.cavity(x, y, z) - 2, self.below_diaphragm(x, y, z) - 3)


def random_torso(rng, sex: str) -> Torso:
    """Draw the torso of a man ("M") or a woman ("F")."""
    mean = float(np.clip(rng.lognormal(np.log(19), 0.42), 7, 40))
    female = sex == "F"
    fat = mean * np.array([rng.uniform(0.9, 1.5), rng.uniform(0.7, 1.2), rng.uniform(0.8, 1.2)])
    turn = np.deg2rad(rng.uniform(28, 48))
    axis = np.array([np.cos(turn) * 0.94, -np.sin(turn) * 0.94, -0.34])
    second = np.cross([0, 0, 1.0], axis)
    second /= np.linalg.norm(second)
    frame = np.stack([axis, second, np.cross(axis, second)])
    size = rng.uniform(0.92, 1.1)
    heart = Blob(np.array([18.0, -24.0, 30.0]) + rng.normal(0, 3, 3), size * np.array([60.0, 40, 46]), frame)
    return Torso(
        fat=fat,
        breasts=float(rng.uniform(12, 38)) if female else 0.0,
        belly=float(np.clip(rng.normal(mean * 0.9, 6), 0, 34)),
        wall=float(rng.uniform(12, 16)),
        heart=heart,
    )
