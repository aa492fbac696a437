"""A patient's torso, all but the lesions, and the painter that puts it onto a canvas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy.spatial.distance import cdist

from . import organs, vessels
from .organs import Part
from .skeleton import Skeleton, random_skeleton
from .space import Canvas, Waves, Window
from .tissue import MEAN_AGE, Tissues
from .torso import Torso, random_torso

ORGANS = (
    "background", "skin", "subcutaneous fat", "muscle", "visceral fat", "lung", "liver", "spleen", "kidney cortex",
    "kidney medulla", "aorta", "vena cava", "portal vein", "heart blood", "heart muscle", "stomach", "gallbladder",
    "pancreas", "small bowel", "colon", "vertebral marrow", "cortical bone", "disc", "lesion",
)  # fmt: skip
LABEL = {name: number for number, name in enumerate(ORGANS)}


@dataclass
class Anatomy:
    """One patient without lesions, in anatomy space.

    Attributes:
        sex: "M" or "F".
        age: years, at the first study.
        scale: (3,) size relative to the reference body.
        build: the patient's own displacement field, for ``Pose``.
        torso: the large surfaces.
        skeleton: the bones.
        parts: soft organs, vessels and bowel in the order in which they are painted.
        solids: name -> distance function of the organs that lesions are placed in.
        deviates: the patient's CT numbers (see ``tissue``).
    """

    sex: str
    age: int
    scale: np.ndarray
    build: Waves
    torso: Torso
    skeleton: Skeleton
    parts: list[Part]
    solids: dict
    deviates: dict

    @cached_property
    def obstacles(self) -> np.ndarray:
        """(n, 4) beads of the vessels, airways and bowel in which no lymph node lies."""
        hard = ("lung vessel", "liver vessel", "mesenteric vessel", "renal pelvis")
        beads = [p.shape for p in self.parts if p.is_beads and p.organ not in hard]
        return np.vstack(beads).astype(np.float32)

    def clearance(self, points) -> np.ndarray:
        """Distance to the nearest vessel, airway, bowel, organ or bone, negative inside them.

        Args:
            points: (n, 3) mm.

        Returns:
            (n,) mm.
        """
        points = np.asarray(points, np.float32).reshape(-1, 3)
        if not len(points):
            return np.zeros(0)
        beads = self.obstacles
        apart = cdist(points, beads[:, :3]) - beads[:, 3]
        inside = [f(*points.T) for name, f in self.solids.items() if name != "lung"]
        inside.append(self.skeleton.body_outline(*points.T))
        return np.minimum(apart.min(axis=1), -np.max(inside, axis=0))

    def distance(self, organ: str, point) -> float:
        """Distance inside one of ``solids`` at a point (x, y, z), mm."""
        return float(self.solids[organ](*(np.float32(c).reshape(1) for c in np.asarray(point)))[0])


def random_anatomy(rng) -> Anatomy:
    """Draw a patient."""
    sex = str(rng.choice(["M", "F"]))
    torso = random_torso(rng, sex)
    skeleton = random_skeleton(rng, torso)
    liver_parts, liver = organs.liver(rng, torso)
    spleen_parts, spleen = organs.spleen(rng, torso)
    kidney_parts, (right, left) = organs.kidneys(rng)
    parts = [
        *organs.merged(organs.belly_walls(rng)),
        *vessels.mesentery(rng),
        *organs.merged(organs.bowel(rng)),
        *organs.stomach(rng, torso),
        *organs.merged(organs.small_organs(rng)),
        *kidney_parts,
        *liver_parts,
        *spleen_parts,
        *organs.heart(rng, torso),
        *organs.merged(vessels.great_vessels(rng)),
        *vessels.liver_trees(rng, liver),
        *vessels.airways(rng),
        *vessels.lung_trees(rng, torso),
        Part("cortical bone", "cortical bone", spur_beads(skeleton.spurs)),
    ]
    size = rng.normal(1.04, 0.035) * (1.03 if sex == "M" else 0.96)
    scale = size * np.exp(rng.normal(0, [0.035, 0.04, 0.03]))
    build = Waves.displacement(rng, 2.6, 210)
    solids = {"lung": torso.lungs, "liver": liver, "spleen": spleen, "heart": torso.heart,
              "right kidney": right, "left kidney": left}  # fmt: skip
    age = int(np.clip(rng.normal(MEAN_AGE, 13), 22, 88))
    deviates = Tissues.patient_deviates(rng, age)
    return Anatomy(sex, age, scale, build, torso, skeleton, parts, solids, deviates)


def spur_beads(spurs) -> np.ndarray:
    """Beads (n, 4) of osteophytes (n, 4): short strings that taper upwards."""
    if not len(spurs):
        return np.zeros((0, 4))
    steps = np.linspace(-1, 1, 5)[None, :, None]
    beads = spurs[:, None] * np.ones((1, 5, 1))
    beads[..., 2:3] += steps * spurs[:, None, 3:]
    beads[..., 3:] *= 1 - 0.45 * np.abs(steps)
    return beads.reshape(-1, 4)


class Painter:
    """Paints an anatomy onto a canvas.

    Args:
        canvas: fresh, at -1000 HU.
        anatomy: to be painted.
        tissues: the CT numbers of this scan.
        rng: for the grain of tissues, which differs from scan to scan.
        labels: whether to keep, for every fine voxel, the number of the organ (``ORGANS``) painted last.
    """

    def __init__(self, canvas: Canvas, anatomy: Anatomy, tissues: Tissues, rng, labels: bool = False):
        self.canvas, self.anatomy, self.tissues, self.rng = canvas, anatomy, tissues, rng
        self.labels = np.zeros(canvas.hu.shape, np.uint8) if labels else None
        self.grain = self._draw_grain()

    def run(self) -> None:
        """Paint the whole torso."""
        self._wall()
        self._lungs()
        for part in self.anatomy.parts:
            self.part(part)
        self._bones()

    def part(self, part: Part) -> None:
        """Paint one part."""
        if part.is_beads:
            painted = self.canvas.stamp(part.shape) if len(part.shape) else None
            if painted is not None:
                self.fill(*painted, part.tissue, _label(part))
            return
        window = self.canvas.window(part.low, part.high)
        if window is None:
            return
        if part.fine:
            cover = self.canvas.coverage(self.canvas.evaluate(part.shape, window))
            self.fill(window.index, cover, part.tissue, _label(part))
        else:
            self.field(part.shape(*self.canvas.nodes(window)), window, part.tissue, _label(part))

    def field(self, distance, window: Window, tissue: str, organ: str | None = None, slope=None) -> None:
        """Paint a tissue inside a smooth surface.

        Args:
            distance: inside the surface, mm, at the window's nodes.
            window: to paint in.
            tissue: key of ``tissue.TISSUES``.
            organ: name in ``ORGANS``.
            slope: HU added to the tissue's CT number, at the window's nodes.
        """
        mean, grain = np.float32(self.tissues.mean(tissue)), np.float32(self.tissues.grain(tissue))
        canvas, (_, rows, columns) = self.canvas, window.index
        for k in range(window.z.start, window.z.stop):
            level = canvas.level(distance, k)
            if level.max() < -0.5 * canvas.pixel:
                continue
            index, cover = (k, rows, columns), canvas.coverage(canvas.spread(level))
            value = mean if slope is None else mean + canvas.spread(canvas.level(slope, k))
            canvas.blend(index, cover, value + grain * self.grain[index] if grain else value)
            self.mark(index, cover, organ)

    def fill(self, index, cover, tissue: str, organ: str | None = None) -> None:
        """Paint a tissue with its grain.

        Args:
            index: of a part of the canvas.
            cover: share of each voxel there that the tissue fills.
            tissue: key of ``tissue.TISSUES``.
            organ: name in ``ORGANS``.
        """
        mean, grain = self.tissues.mean(tissue), self.tissues.grain(tissue)
        value = mean + np.float32(grain) * self.grain[index] if grain else mean
        self.canvas.blend(index, cover, value)
        self.mark(index, cover, organ)

    def mark(self, index, cover, organ: str | None) -> None:
        """Note the organ of the voxels that are wholly covered, and clear those that it hides in part."""
        if self.labels is not None:
            view = self.labels[index]
            view[cover > 0.02] = 0
            view[cover > 0.98] = LABEL.get(organ, 0)

    def _draw_grain(self):
        """Smooth unit-variance noise of about 6 mm on the fine grid."""
        canvas = self.canvas
        depth, height, width = canvas.hu.shape
        step = max(1, round(4.0 / canvas.step[0]))
        cells = (max(2, round(n * canvas.pixel / 4.0)) for n in (height, width))
        noise = self.rng.standard_normal((depth // step + 2, *cells), dtype=np.float32)
        grain = np.empty(canvas.hu.shape, np.float32)
        for k, target in enumerate(grain):
            t = (k % step) / step
            plane = ((1 - t) * noise[k // step] + t * noise[k // step + 1]) / np.float32(0.8 * np.hypot(1 - t, t))
            cv2.resize(plane, (width, height), dst=target, interpolation=cv2.INTER_CUBIC)
        return grain

    def _wall(self):
        """Skin, fat, muscle and the fat that fills the cavity."""
        torso, whole = self.anatomy.torso, self.canvas.whole
        nodes = self.canvas.nodes(whole)
        muscle, fat, wall = torso.muscle(*nodes), torso.fat_depth(*nodes), torso.wall_depth(*nodes)
        self.field(muscle + fat, whole, "skin", "skin")
        self.field(muscle + fat - 2.2, whole, "fat", "subcutaneous fat")
        self.field(muscle, whole, "muscle", "muscle")
        self.field(muscle - wall, whole, "visceral fat", "visceral fat")
        flanks = self.canvas.window((-160, -90, -260), (160, 60, -45))
        if flanks is not None:  # the fat between the sheets of the belly's side walls
            x, y, z = self.canvas.nodes(flanks)
            edge = np.minimum(np.abs(x) - 62, np.minimum(-50 - z, 55 - y))
            inside, thickness = torso.muscle(x, y, z), torso.wall_depth(x, y, z)
            for share in (0.36, 0.68):
                self.field(np.minimum(0.35 - np.abs(inside - share * thickness), edge), flanks, "fat")
        sheet = self.canvas.window((-150, -110, -125), (150, 110, 12))
        if sheet is not None:
            nodes = self.canvas.nodes(sheet)
            self.field(
                np.minimum(2.2 - np.abs(torso.below_diaphragm(*nodes)), torso.cavity(*nodes)), sheet, "muscle"
            )

    def _lungs(self):
        """Air spaces, denser towards the back where the patient lies."""
        window = self.canvas.window((-150, -105, -110), (150, 105, 190))
        if window is not None:
            x, y, z = self.canvas.nodes(window)
            slope = np.clip(y * 0.55 - z * 0.05, -60, 70)
            self.field(self.anatomy.torso.lungs(x, y, z), window, "lung", "lung", slope)

    def _bones(self):
        """Vertebrae with discs and canal, ribs with cartilage, breastbone and shoulder blades."""
        canvas, bones = self.canvas, self.anatomy.skeleton
        window = canvas.window((-46, 14, -300), (46, 98, 300))
        if window is not None:
            x, y, z = (canvas.refine(c, window) for c in canvas.nodes(window))
            column, bodies, arches = bones.spine(x, y, z)
            self.fill(window.index, canvas.coverage(column), "disc", "disc")
            self._bone(window.index, bodies, 1.6, "vertebral marrow")
            self.fill(window.index, canvas.coverage(bones.canal(x, y, z)), "thecal sac")
            self._bone(window.index, arches, 2.4, None)
        self._ribs()
        for place, thickness, shell, low, high in (
            (bones.sternum_place, 5.2, 2.0, (-35, -115, 35), (35, -40, 182)),
            (bones.scapula_place, 2.3, 2.0, (-135, 15, 78), (135, 115, 240)),
        ):
            part = canvas.window(low, high)
            if part is not None:
                depth, edge = (canvas.refine(f, part) for f in place(*canvas.nodes(part)))
                self._bone(part.index, np.minimum(np.float32(thickness) - np.abs(depth), edge), shell, None)

    def _bone(self, index, distance, shell: float, organ: str | None):
        """A bone: a shell of cortex, ``shell`` mm thick, and marrow inside."""
        inner = self.canvas.coverage(distance - np.float32(shell))
        self.fill(index, self.canvas.coverage(distance), "cortical bone", "cortical bone")
        self.fill(index, inner, "marrow", organ)

    def _ribs(self):
        canvas, bones = self.canvas, self.anatomy.skeleton
        window = canvas.window((-160, -115, -125), (160, 110, 230))
        if window is None:
            return
        fields = [canvas.planes(f, window) for f in bones.rib_place(*canvas.nodes(window))]
        _, rows, columns = window.index
        for k, (shell, *place) in enumerate(zip(*fields, strict=True), start=window.z.start):
            near = np.abs(shell) < 6
            if near.any():
                bone, cartilage = bones.ribs(shell[near], *(p[near] for p in place))
                index = (k, rows, columns)
                self._scattered(index, near, cartilage, "cartilage", None)
                self._scattered(index, near, bone, "cortical bone", "cortical bone")
                self._scattered(index, near, bone - 2.2, "marrow", None)

    def _scattered(self, index, where, distance, tissue: str, organ: str | None):
        """Paint a tissue on the pixels ``where`` of a part of the canvas alone, by their ``distance`` (n,)."""
        cover = self.canvas.coverage(distance)
        shown = np.flatnonzero(cover)
        if len(shown):
            rows, columns = (n[shown] for n in np.nonzero(where))
            pixels = (index[0], rows + (index[1].start or 0), columns + (index[2].start or 0))
            self.fill(pixels, cover[shown], tissue)
            if self.labels is not None:
                self.labels[pixels] = np.where(cover[shown] > 0.98, LABEL.get(organ, 0), 0)


def _label(part: Part) -> str | None:
    """The row of the HU table that a part's voxels belong to."""
    if part.organ == "heart":
        return "heart muscle" if part.tissue == "myocardium" else "heart blood"
    if part.organ == "kidney":
        return part.tissue
    same = {"visceral fat": "visceral fat", "gas": None, "air": None, "faeces": None}
    return same.get(part.tissue, part.organ if part.organ in LABEL else None)
