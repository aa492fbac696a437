"""Spine, ribs, breastbone and shoulder blades, as functions of anatomy coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import ellipse_distance
from .torso import CANAL_Y, SPINE_Y, Torso

LEVEL_HEIGHTS = np.array([-280.0, -60.0, 260.0])
LEVELS = np.array([-6.4, 0.0, 12.6])  # vertebrae are 34 mm apart in the loins, 25 mm in the chest
RIB_PITCH = 25.4


@dataclass(frozen=True)
class Skeleton:
    """One patient's bones.

    Attributes:
        torso: the wall that the ribs lie in.
        offset: where the levels start, in levels.
        width: half-width of a vertebral body at z = -60, mm.
        spurs: (n, 4) osteophytes: x, y, z and radius.
    """

    torso: Torso
    offset: float
    width: float
    spurs: np.ndarray

    def level(self, z):
        """Vertebral level at a height, a number whose fraction runs from 0 to 1 within one body and its disc."""
        return np.interp(z, LEVEL_HEIGHTS, LEVELS).astype(np.float32) + np.float32(self.offset)

    def pitch(self, z):
        """Height of a vertebral body with its disc, mm."""
        return np.where(z < -60, np.float32(34.4), np.float32(25.4))

    def body_outline(self, x, y, z):
        """Distance inside the column of vertebral bodies and discs in the axial plane, mm."""
        return self._outline(x, y, self.level(z), z)

    def _outline(self, x, y, level, z):
        half = np.float32(self.width) * (1 - np.float32(0.0012) * np.clip(z + 60, -200, 250))
        half = half * (1 + np.float32(0.09) * np.cos(np.float32(2 * np.pi) * level))
        front = ellipse_distance(x, y - SPINE_Y, half, half * np.float32(0.76), 0.35)
        return np.minimum(front, np.float32(CANAL_Y - 9.5) - y)

    def spine(self, x, y, z):
        """Distances inside the column of bodies and discs, the bodies alone, and the posterior parts, mm."""
        level = self.level(z)
        fraction, pitch = level - np.floor(level), self.pitch(z)
        column = self._outline(x, y, level, z)
        bodies = np.minimum(column, (np.float32(0.39) - np.abs(fraction - np.float32(0.5))) * pitch)
        return column, bodies, self._arches(x, y, fraction, pitch)

    @staticmethod
    def _arches(x, y, fraction, pitch):
        """Distance inside pedicles, laminae, transverse and spinous processes, and the joints between them."""
        outer = ellipse_distance(x, y - CANAL_Y, np.float32(17), np.float32(15))
        ring = np.minimum(outer, -ellipse_distance(x, y - CANAL_Y, np.float32(11.5), np.float32(9)))
        sideways = np.where(y < CANAL_Y + 2, np.abs(fraction - 0.62) - 0.2, np.abs(fraction - 0.45) - 0.33)
        ring = np.minimum(ring, -sideways * pitch)
        tip = np.minimum(3.6 + 0.03 * (y - CANAL_Y) - np.abs(x), np.minimum(y - CANAL_Y - 10, 95 - y))
        slant = np.abs(fraction - 0.32 + (y - CANAL_Y - 10) * 0.007) - 0.24
        tip = np.minimum(tip, -slant * pitch)
        wings = np.minimum(
            4.2 - np.abs(y - CANAL_Y + 2 - 0.15 * np.abs(x)), np.minimum(38 - np.abs(x), np.abs(x) - 10)
        )
        wings = np.minimum(wings, -(np.abs(fraction - 0.6) - 0.13) * pitch)
        joint = np.float32(0.36) - np.minimum(fraction, 1 - fraction)
        facet = np.minimum(6.5 - np.hypot(np.abs(x) - 17, y - CANAL_Y - 5), joint * pitch)
        return np.maximum(np.maximum(np.maximum(ring, tip), wings), facet)

    def canal(self, x, y, z):
        """Distance inside the thecal sac, mm."""
        return ellipse_distance(x, y - CANAL_Y, np.float32(8.5), np.float32(6.5)) + 0 * z

    def rib_place(self, x, y, z):
        """Smooth fields that place the ribs, mm.

        Returns:
            Distance from their shell, height within the rib cage, and distances inside the parts of the shell that
            are bone and cartilage.
        """
        shell = self.torso.muscle(x, y, z) - self.torso.wall_depth(x, y, z) + 6.0
        drop = 30 - 0.42 * y + 0.0016 * np.square(np.clip(y, -110, 110)) + 0.3 * np.abs(x)
        height = z + drop
        end = np.interp(height, [-85, -40, 0, 60, 230], [60, 5, -35, -62, -66]).astype(np.float32)
        there = np.minimum(np.abs(x) - np.where(y > 0, 18, 16), height + 85)
        bone = np.minimum(there, y - end)
        cartilage = np.minimum(np.minimum(there, end - y), height - 5)
        return tuple(f.astype(np.float32) for f in (shell, height, bone, cartilage))

    def ribs(self, shell, height, bone, cartilage):
        """Distances inside the ribs' bone and cartilage, mm, from the fields of ``rib_place``."""
        order = height * np.float32(1 / RIB_PITCH) + np.float32(self.offset)
        vertical = np.float32(RIB_PITCH) * (order - np.floor(order) - np.float32(0.5))
        rib = 4.8 * (1 - np.sqrt(np.square(shell / 3.9) + np.square(vertical / 6.2)))
        return np.minimum(rib, bone), np.minimum(rib, cartilage)

    def sternum_place(self, x, y, z):
        """Smooth fields that place the breastbone: distances from its middle plane, and inside its edge, mm."""
        depth = self.torso.muscle(x, y, z) - self.torso.wall_depth(x, y, z) + 7.0
        half = np.interp(z, [40, 70, 130, 165], [9, 15, 17, 27]).astype(np.float32)
        return depth, np.minimum(np.minimum(half - np.abs(x), -y), np.minimum(z - 38, 178 - z))

    def scapula_place(self, x, y, z):
        """The fields of ``sternum_place`` for the shoulder blades, thin plates behind and beside the ribs."""
        depth = self.torso.muscle(x, y, z) - 9 + 0.06 * (np.abs(x) - 80)
        edge = 34 - np.abs(np.abs(x) - 92 + 0.2 * (z - 130))
        return depth, np.minimum(np.minimum(edge, y - 18), z - 82)


def random_skeleton(rng, torso: Torso) -> Skeleton:
    """Draw the bones of a torso."""
    width = float(rng.uniform(19.5, 23.5))
    offset = float(rng.uniform(0, 1))
    count = int(rng.poisson(3))
    levels = rng.integers(-5, 7, count)
    heights = np.interp(levels - offset, LEVELS, LEVEL_HEIGHTS)
    angle = np.where(rng.random(count) < 0.5, rng.uniform(-0.9, 0.2, count), np.pi + rng.uniform(-0.2, 0.9, count))
    spurs = np.column_stack(
        [
            (width + 1) * np.cos(angle),
            SPINE_Y + 0.78 * (width + 1) * np.sin(angle),
            heights + rng.normal(0, 2, count),
            rng.uniform(2.5, 5.0, count),
        ]
    )
    return Skeleton(torso, offset, width, spurs)
