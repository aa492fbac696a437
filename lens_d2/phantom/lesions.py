"""Lesions: the place, size and look in each phase of every kind, one entry of the registry a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from fvcore.common.registry import Registry

from .anatomy import Anatomy, Painter
from .shapes import Blob, random_rotation
from .skeleton import LEVEL_HEIGHTS, LEVELS
from .space import Waves
from .tissue import PHASES, Tissues

LESION_KINDS = Registry("LESION_KINDS")


@dataclass
class Lesion:
    """One lesion of one patient, the same through all studies.

    Attributes:
        instance: number within the patient, from 0.
        kind: key of ``LESION_KINDS``.
        shape: Blob at the first study, anatomy space.
        organ: the organ it lies in, for tables.
        hu: (3,) CT number of its body in each phase.
        margin: width of its border in mm.
        core: None, or (share of the radius, HU) of a necrotic centre, cavity or calcification.
        terms: attributes in the words of ``labels``.
        growth: diameter at each study relative to the first.
        first_study: index of the study in which it appears.
        texture: standard deviation of its grain, HU.
    """

    instance: int
    kind: str
    shape: Blob
    organ: str
    hu: np.ndarray
    margin: float
    core: tuple[float, float] | None = None
    terms: tuple[str, ...] = ()
    growth: np.ndarray = field(default_factory=lambda: np.ones(1))
    first_study: int = 0
    texture: float = 6.0

    @property
    def centre(self) -> np.ndarray:
        """(3,) centre in anatomy space, mm."""
        return self.shape.centre

    def radius(self, study: int = 0) -> float:
        """Mean radius at a study, mm."""
        return self.shape.mean_radius * float(self.growth[min(study, len(self.growth) - 1)])

    def at(self, study: int) -> Blob:
        """The shape at a study."""
        factor = float(self.growth[min(study, len(self.growth) - 1)])
        return Blob(self.shape.centre, self.shape.radii * factor, self.shape.rotation, self.shape.waves)

    def value(self, phase: str) -> float:
        """CT number of its body in a phase, HU."""
        return float(self.hu[PHASES.index(phase)])

    def paint(self, painter: Painter, study: int):
        """Paint the lesion.

        Returns:
            Index of a part of the canvas and the coverage there, or None if the lesion lies outside.
        """
        canvas, shape = painter.canvas, self.at(study)
        window = canvas.window(*shape.bounds)
        if window is None:
            return None
        distance = canvas.evaluate(shape, window)
        cover = canvas.coverage(distance.copy())
        soft = canvas.coverage(distance + 0.15 * self.margin, max(self.margin, canvas.pixel))
        value = self.value(painter.tissues.phase) + np.float32(self.texture) * painter.grain[window.index]
        canvas.blend(window.index, soft, value)
        if self.core is not None:
            share, hu = self.core
            inner = canvas.coverage(distance - np.float32((1 - share) * shape.mean_radius), 2.5)
            canvas.blend(window.index, inner, hu)
        painter.mark(window.index, cover, "lesion")
        return window.index, cover


@dataclass(frozen=True)
class Draw:
    """Place and look of one lesion, drawn by its kind; the attributes are those of ``Lesion``."""

    centre: np.ndarray
    organ: str
    hu: np.ndarray
    margin: float = 2.0
    core: tuple[float, float] | None = None
    terms: tuple[str, ...] = ()
    roughness: float = 0.09
    texture: float = 6.0


@dataclass(frozen=True)
class Look:
    """Contrast of one lesion: the patient's tissues and the lesion's own grade.

    Attributes:
        tissue: function of (name, phase) to HU without injection strength.
        grade: 1 for the contrast of the textbook, lower for fainter lesions.
    """

    tissue: Callable[[str, str], float]
    grade: float

    def relative(self, name: str, deltas) -> np.ndarray:
        """(3,) CT numbers of a tissue in each phase, shifted by graded ``deltas``, HU."""
        return np.array([self.tissue(name, p) + self.grade * d for p, d in zip(PHASES, deltas, strict=True)])


def _in_solid(rng, anatomy, organ, low, high, low_depth, high_depth, tries=400):
    points = rng.uniform(low, high, (tries, 3)).astype(np.float32)
    depth = anatomy.solids[organ](*points.T)
    good = np.flatnonzero((depth > low_depth) & (depth < high_depth))
    return points[good[0]].astype(float) if len(good) else None


@LESION_KINDS.register()
def lung_nodule(rng, anatomy: Anatomy, radius: float, look: Look) -> Draw | None:
    """Draw a solid, part-solid, ground-glass or cavitary nodule, perhaps against the pleura."""
    pleural = rng.random() < 0.3
    span = (0.2 * radius, 0.9 * radius) if pleural else (radius + 1.0, 200.0)
    centre = _in_solid(rng, anatomy, "lung", (-140, -95, -75), (140, 90, 172), *span)
    if centre is None:
        return None
    draw = rng.random()
    side = "right lung" if centre[0] < 0 else "left lung"
    terms = ("nodule" if radius < 15 else "mass", side) + (("subpleural",) if pleural else ())
    if draw < 0.68:
        hu = np.array([25.0, 50.0, 55.0]) + rng.normal(0, 12) - 260 * (1 - look.grade)
        spiky = rng.random() < 0.3
        return Draw(
            centre,
            "lung",
            hu,
            1.6,
            None,
            terms + ("solid",) + (("spiculated",) if spiky else ()),
            0.22 if spiky else 0.08,
            12,
        )
    if draw < 0.9:
        glass = rng.uniform(-620, -400)
        core = (0.45, 0.0) if rng.random() < 0.4 else None
        return Draw(centre, "lung", np.full(3, glass), 4.0, core, terms + ("ground-glass opacity",), 0.12, 30)
    return Draw(centre, "lung", np.array([30.0, 45, 50]), 1.6, (0.55, -880.0), terms + ("cavitary",), 0.12, 12)


@LESION_KINDS.register()
def liver_tumour(rng, anatomy: Anatomy, radius: float, look: Look) -> Draw | None:
    """Draw a tumour darker than the liver, perhaps with a necrotic centre, one that enhances early, or a cyst."""
    centre = _in_solid(rng, anatomy, "liver", (-145, -95, -155), (80, 85, 5), min(0.35 * radius, 9), 200.0)
    if centre is None:
        return None
    draw = rng.random()
    terms = ("mass" if radius > 15 else "nodule",)
    if draw < 0.62:
        hu = look.relative("liver", (-26, -32, -58))
        core = (0.5, float(hu[2] - 22)) if radius > 10 and rng.random() < 0.35 else None
        terms += ("hypoattenuation", "metastasis") + (("necrosis",) if core else ())
        return Draw(centre, "liver", hu, rng.uniform(2, 6), core, terms, 0.11)
    if draw < 0.84:
        return Draw(
            centre, "liver", look.relative("liver", (-18, 42, -30)), 3.0, None, terms + ("enhancing",), 0.1, 9
        )
    hu = np.full(3, rng.uniform(0, 18)) + (1 - look.grade) * 25
    return Draw(centre, "liver", hu, 1.6, None, ("cyst", "hypoattenuation"), 0.05, 2)


MEDIASTINAL_STATIONS = {
    "right paratracheal": ((-19, -3, 122), (4, 7, 14)),
    "left paratracheal": ((16, 6, 108), (5, 6, 10)),
    "aorticopulmonary window": ((30, -2, 106), (5, 6, 5)),
    "subcarinal": ((2, 12, 78), (8, 4, 8)),
    "right hilum": ((-38, 12, 74), (5, 8, 12)),
    "left hilum": ((42, 16, 76), (5, 8, 12)),
    "prevascular": ((4, -42, 112), (11, 7, 16)),
    "paraesophageal": ((6, 24, 50), (12, 4, 30)),
    "cardiophrenic": ((-8, -62, 2), (34, 6, 8)),
    "retrocrural": ((2, 20, -14), (9, 3, 14)),
}
ABDOMINAL_STATIONS = {
    "paraaortic": ((24, 10, -150), (5, 6, 35)),
    "aortocaval": ((-5, 2, -150), (3, 8, 35)),
    "paracaval": ((-34, 12, -150), (5, 7, 35)),
    "porta hepatis": ((-34, -2, -84), (9, 8, 9)),
    "celiac": ((14, -16, -90), (12, 6, 8)),
    "gastrohepatic": ((24, -24, -56), (10, 10, 12)),
    "mesentery": ((4, -38, -160), (45, 16, 38)),
    "peripancreatic": ((-4, -8, -116), (26, 8, 10)),
    "splenic hilum": ((72, 8, -60), (8, 10, 12)),
    "omentum": ((0, -72, -165), (60, 6, 40)),
}


def _in_stations(rng, anatomy, stations, radius, room, tries=60):
    """The centre of a node that keeps clear of vessels and bowel, and its station; None if there is no room."""
    points, names = station_points(rng, stations, tries)
    good = np.flatnonzero((room(*points.T) > 0.4 * radius) & (anatomy.clearance(points) > 0.72 * radius))
    return (points[good[0]].astype(float), names[good[0]]) if len(good) else None


def station_points(rng, stations, count):
    """Random points around the centres of stations.

    Args:
        rng: generator.
        stations: name -> centre and spread, mm.
        count: number of points.

    Returns:
        (count, 3) points, mm, and their stations' names.
    """
    names = rng.choice(list(stations), count)
    places = np.array([stations[n] for n in names], np.float32).reshape(count, 2, 3)
    centres, spreads = places[:, 0], places[:, 1]
    return centres + (0.8 * rng.normal(size=(count, 3)) * spreads).astype(np.float32), names


def _node_look(rng, look, radius):
    hu = look.relative("lymph node", (0, 0, 0)) - (1 - look.grade) * np.array([25, 35, 45])
    core = (0.5, float(hu[0] - 22)) if radius > 9 and rng.random() < 0.2 else None
    return hu, core, ("enlargement",) * (radius > 7) + ("necrosis",) * (core is not None)


@LESION_KINDS.register()
def mediastinal_node(rng, anatomy: Anatomy, radius: float, look: Look) -> Draw | None:
    """Draw an enlarged node in a station of the chest."""

    def room(x, y, z):
        return np.maximum(-anatomy.torso.lungs(x, y, z), 4.0 - np.abs(anatomy.torso.lungs(x, y, z)))

    found = _in_stations(rng, anatomy, MEDIASTINAL_STATIONS, radius, room)
    if found is None:
        return None
    hu, core, terms = _node_look(rng, look, radius)
    return Draw(found[0], "mediastinum", hu, 1.8, core, ("lymph node", found[1]) + terms, 0.1)


@LESION_KINDS.register()
def abdominal_node(rng, anatomy: Anatomy, radius: float, look: Look) -> Draw | None:
    """Draw an enlarged node along the great vessels or in the mesentery."""
    found = _in_stations(rng, anatomy, ABDOMINAL_STATIONS, radius, anatomy.torso.belly_room)
    if found is None:
        return None
    hu, core, terms = _node_look(rng, look, radius)
    return Draw(found[0], "abdomen", hu, 1.8, core, ("lymph node", found[1]) + terms, 0.1)


@LESION_KINDS.register()
def kidney_lesion(rng, anatomy: Anatomy, radius: float, look: Look) -> Draw | None:
    """Draw a cyst or a solid tumour, often standing out of the kidney."""
    side = "right kidney" if rng.random() < 0.5 else "left kidney"
    low, high = anatomy.solids[side].bounds
    centre = _in_solid(rng, anatomy, side, low, high, -0.35 * radius, 9.0)
    if centre is None:
        return None
    terms = (side,) + (("exophytic",) if anatomy.distance(side, centre) < 0.3 * radius else ())
    if rng.random() < 0.5:
        hu = np.full(3, rng.uniform(2, 16)) + (1 - look.grade) * np.array([8.0, 40, 60])
        return Draw(centre, "kidney", hu, 1.6, None, ("cyst", "hypoattenuation") + terms, 0.04, 2)
    hu = np.array([38.0, 112, 92]) + rng.normal(0, 10) + (1 - look.grade) * np.array([-4.0, 20, 40])
    core = (0.45, 25.0) if radius > 11 and rng.random() < 0.4 else None
    return Draw(centre, "kidney", hu, 2.2, core, ("mass", "enhancing") + terms, 0.1, 10)


@LESION_KINDS.register()
def bone_lesion(rng, anatomy: Anatomy, radius: float, look: Look) -> Draw | None:
    """Draw a lytic or sclerotic deposit in a vertebra, a rib or the breastbone."""
    bones = anatomy.skeleton
    place = rng.choice(["spine", "rib", "sternum"], p=[0.66, 0.24, 0.1])
    if place == "spine":
        level = rng.integers(-5, 10) + 0.5 + rng.uniform(-0.2, 0.2) - bones.offset
        z = float(np.interp(level, LEVELS, LEVEL_HEIGHTS))
        centre = np.array([rng.uniform(-13, 13), 40 + rng.uniform(-8, 12), z])
        organ = "spine"
    else:
        centre = _on_shell(rng, anatomy, place)
        organ = place
    if centre is None:
        return None
    if rng.random() < 0.5:
        hu = np.array([45.0, 62, 70]) + (1 - look.grade) * 70
        return Draw(centre, organ, hu, 2.2, None, ("bone", "lytic", organ), 0.13, 10)
    hu = np.full(3, rng.uniform(520, 900)) - (1 - look.grade) * 250
    return Draw(centre, organ, hu, 3.0, None, ("bone", "sclerotic", organ), 0.15, 45)


def _on_shell(rng, anatomy, place, tries=3000):
    """A point inside a rib or the breastbone."""
    points = rng.uniform((-150, -105, -60), (150, 90, 165), (tries, 3)).astype(np.float32)
    if place == "sternum":
        points[:, 0] *= 0.12
        points[:, 1] = -np.abs(points[:, 1])
        place, edge = anatomy.skeleton.sternum_place(*points.T)
        depth = np.minimum(5.2 - np.abs(place), edge)
    else:
        depth = anatomy.skeleton.ribs(*anatomy.skeleton.rib_place(*points.T))[0]
    good = np.flatnonzero(depth > 1.5)
    return points[good[0]].astype(float) if len(good) else None


@LESION_KINDS.register()
def adrenal_lesion(rng, anatomy: Anatomy, radius: float, look: Look) -> Draw | None:
    """Draw an adenoma (dark before contrast) or a metastasis of an adrenal gland."""
    glands = [p.shape for p in anatomy.parts if p.organ == "adrenal"]
    gland = glands[rng.integers(len(glands))]
    centre = gland[rng.integers(len(gland)), :3] + rng.normal(0, 1.5, 3)
    adenoma = rng.random() < 0.5
    hu = np.array([6.0, 45, 52]) if adenoma else np.array([36.0, 62, 78])
    side = "right adrenal gland" if centre[0] < 0 else "left adrenal gland"
    terms = ("adrenal gland", side) + (("adenoma",) if adenoma else ("metastasis",))
    return Draw(centre, "adrenal gland", hu + rng.normal(0, 6), 1.8, None, terms, 0.09)


@LESION_KINDS.register()
def soft_tissue_lesion(rng, anatomy: Anatomy, radius: float, look: Look) -> Draw | None:
    """Draw a nodule under the skin or in the muscles of the wall."""
    torso = anatomy.torso
    points = rng.uniform((-170, -130, -190), (170, 120, 160), (400, 3)).astype(np.float32)
    muscle, fat = torso.muscle(*points.T), torso.fat_depth(*points.T)
    under_skin = (muscle < -0.6 * radius) & (muscle + fat > radius + 1)
    in_muscle = (muscle > 0.5 * radius) & (torso.cavity(*points.T) < -0.8 * radius) & (np.abs(points[:, 0]) > 14)
    chosen = under_skin if rng.random() < 0.6 and under_skin.any() else in_muscle
    good = np.flatnonzero(chosen)
    if not len(good):
        return None
    where = "subcutaneous" if chosen is under_skin else "muscle"
    hu = np.array([38.0, 58, 72]) if where == "subcutaneous" else np.array([34.0, 84, 98])
    centre = points[good[0]].astype(float)
    return Draw(centre, "body wall", hu + rng.normal(0, 8), 2.0, None, ("soft tissue", where), 0.1, 8)


# kind: mean number in a whole torso, and the median and log-deviation of the diameter in mm
FREQUENCY = {
    "lung_nodule": (7.4, 8.0, 0.60),
    "liver_tumour": (5.8, 12.0, 0.62),
    "mediastinal_node": (7.2, 10.0, 0.48),
    "abdominal_node": (6.2, 10.5, 0.50),
    "kidney_lesion": (2.4, 14.0, 0.58),
    "bone_lesion": (3.2, 10.5, 0.52),
    "adrenal_lesion": (0.7, 13.0, 0.45),
    "soft_tissue_lesion": (1.3, 10.0, 0.52),
}
DIAMETER_RANGE = (4.5, 56.0)


def random_lesions(rng, anatomy: Anatomy, studies: int, hardness: float = 1.0, emphasis: dict | None = None):
    """Draw a patient's lesions, which keep clear of each other.

    Args:
        rng: generator.
        anatomy: of the patient.
        studies: number of studies, for growth.
        hardness: 1 for the default contrast; more makes lesions fainter, less makes them plainer.
        emphasis: kind -> factor on its frequency (the patients of a liver set have liver tumours).

    Returns:
        List of Lesion.
    """

    def tissue(name, phase):
        return Tissues(phase, 1.0, anatomy.deviates).mean(name)

    lesions: list[Lesion] = []
    for kind, (mean, median, spread) in FREQUENCY.items():
        burden = rng.gamma(0.9, 1 / 0.9)  # few patients have many of a kind, many have none
        count = min(int(rng.poisson(mean * burden * (emphasis or {}).get(kind, 1.0))), 16)
        for _ in range(count):
            diameter = float(np.clip(rng.lognormal(np.log(median), spread), *DIAMETER_RANGE))
            grade = float(np.clip(1 - hardness * rng.beta(1.6, 2.6) * 0.85, 0.08, 1.0))
            draw = LESION_KINDS.get(kind)(rng, anatomy, diameter / 2, Look(tissue, grade))
            if draw is None:
                continue
            lesion = _make(rng, len(lesions), kind, diameter, draw, studies)
            if all(_apart(lesion, other) for other in lesions):
                lesions.append(lesion)
    return lesions


def _make(rng, instance, kind, diameter, draw: Draw, studies) -> Lesion:
    radii = diameter / 2 * np.exp(rng.normal(0, 0.16, 3))
    waves = Waves.random(rng, draw.roughness, 1.1 * diameter * (0.6 if "spiculated" in draw.terms else 1.0), 6)
    rate = rng.normal(0.03, 0.16)
    growth = np.exp(rate * np.arange(studies) + np.concatenate([[0], rng.normal(0, 0.04, studies - 1)]))
    top = max(1.0, 46.0 / diameter)
    first = int(rng.integers(1, studies)) if studies > 1 and rng.random() < 0.15 else 0
    return Lesion(
        instance, kind, Blob(draw.centre, radii, random_rotation(rng), waves), draw.organ, draw.hu, draw.margin,
        draw.core, draw.terms, np.clip(growth, 0.6, top), first, draw.texture,
    )  # fmt: skip


def _apart(one: Lesion, other: Lesion) -> bool:
    """Whether two lesions keep clear of each other in all studies, so that each is one component."""
    reach = max(one.growth) * max(one.shape.radii) + max(other.growth) * max(other.shape.radii)
    return float(np.linalg.norm(one.centre - other.centre)) > 1.05 * reach + 6.0
