"""The papers' figures of examples: what each expert finds (LENS, Figs. 3 and 5), what was harvested (Fig. 10)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ..data.cache import CachedVolume
from ..io.files import whole_file
from ..structures.boxes import hull
from ..structures.detections import FUSED, VolumeDetections
from .detections import BOXES_PER_SLICE, hits, lesion_boxes
from .planes import choose_window
from .sheets import SOLID, BoxStyle, add_legend, draw_box, draw_line, make_sheet, show_slice

# Colours of the papers' captions: LENS, Figs. 3 and 5 ...
TRUE_POSITIVE = BoxStyle("#39d353", SOLID, "true positive")
FALSE_POSITIVE = BoxStyle("#ff4d4d", SOLID, "false positive")
FALSE_NEGATIVE = BoxStyle("#ffd33d", SOLID, "false negative")
# ... and Lesion-Harvester, Fig. 10.
MARKED = BoxStyle("#39d353", SOLID, "RECIST-marked lesion")
MINED = BoxStyle("#4d9dff", SOLID, "mined lesion")
CROSS = ("#ff4d4d", "#4d9dff")  # long and short axis
STYLE_OF_STATUS = {"annotation": MARKED, "mined": MINED, "accepted": MINED}
INCHES = 2.6
COLUMNS = 5  # slices of a harvested lesion
FIELD_MM = 140.0  # side of what is shown around it


@dataclass(frozen=True)
class ExpertCase:
    """A sub-volume in which several experts have looked for lesions.

    Attributes:
        record: with all lesions.
        detections: of each expert and fused, by name, in the volume frame.
        score_thresh: detections with a lower score do not count.
    """

    record: dict
    detections: Mapping[str, VolumeDetections]
    score_thresh: float = 0.1

    @cached_property
    def truth(self) -> list[np.ndarray]:
        """(k, 5) slice boxes of each lesion."""
        return [lesion_boxes(lesion, self.record["num_slices"]) for lesion in self.record["lesions"]]

    @cached_property
    def shown(self) -> dict[str, np.ndarray]:
        """Numbers of the detections that count, by name."""
        return {name: np.flatnonzero(own.scores >= self.score_thresh) for name, own in self.detections.items()}

    @cached_property
    def hit(self) -> dict[str, np.ndarray]:
        """(detections that count, lesions) bool by name: which hits which, by LENS's protocol."""
        lesions = np.array([hull(boxes) for boxes in self.truth]).reshape(-1, 6)
        return {name: hits(own.boxes[self.shown[name]], lesions) for name, own in self.detections.items()}

    def telling_slice(self) -> tuple[int, int]:
        """The slice with the most lesions that some of the experts find there and others miss.

        Returns:
            slice, and the number of these lesions. Of several, the one with the most lesions of any kind, nearest
            to the middle.
        """
        count = np.zeros((2, self.record["num_slices"]), dtype=int)
        for i, boxes in enumerate(self.truth):
            slices = np.unique(boxes[:, 0].astype(int))
            count[1, slices] += 1
            if not all(hit[:, i].any() for hit in self.hit.values()):
                count[0, np.intersect1d(slices, self._found_on(i))] += 1
        middle = -np.abs(np.arange(count.shape[1]) - count.shape[1] // 2)
        best = int(np.lexsort((middle, count[1], count[0]))[-1])
        return best, int(count[0, best])

    def _found_on(self, lesion: int) -> np.ndarray:
        """Slices of the boxes of all detections that hit a lesion."""
        boxes = [
            self.detections[name].boxes_of(detection)
            for name, hit in self.hit.items()
            for detection in self.shown[name][hit[:, lesion]]
        ]
        return np.concatenate([np.zeros((0, 6)), *boxes])[:, 0].astype(int)


def draw_experts(path: Path, cases: Sequence[tuple[ExpertCase, CachedVolume]]) -> None:
    """Draw a row for each case, of its telling slice: a panel for each expert, the fused one last (LENS, Fig. 5).

    Detections are true or false positives by 3D IoBB; lesions that an expert misses are false negatives. Of an
    expert's detections on a slice the best :data:`~.detections.BOXES_PER_SLICE` are drawn.

    Args:
        path: of the picture.
        cases: with the same names of experts, and their cached sub-volumes; at least one.
    """
    names = sorted(cases[0][0].detections, key=lambda name: name == FUSED)
    aspect = max(volume.shape[1] / volume.shape[2] for _, volume in cases)
    figure, grid = make_sheet(len(cases) * len(names), len(names), INCHES, aspect)
    for number, (case, volume) in enumerate(cases):
        z = case.telling_slice()[0]
        hu = volume.read(volume.geometry.slices_to_cache([z]))[0]
        here = [(i, row[1:]) for i, boxes in enumerate(case.truth) for row in boxes if row[0] == z]
        first = volume.geometry.boxes_to_cache(here[0][1])[0] if here else None
        window = choose_window(hu, first)
        for column, name in enumerate(names):
            axes = grid[number * len(names) + column]
            title = f"{case.record['volume']}, slice {z + case.record['first_slice']}\n" if column == 0 else "\n"
            show_slice(axes, hu, window, title + name)
            _draw_found(axes, case, name, z, volume)
            missed = [box for i, box in here if not case.hit[name][:, i].any()]
            for box in missed:
                draw_box(axes, volume.geometry.boxes_to_cache(box)[0], FALSE_NEGATIVE)
    add_legend(figure, [TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE])
    with whole_file(path) as temporary:
        figure.savefig(temporary, facecolor="black")


def _draw_found(axes: Axes, case: ExpertCase, name: str, z: int, volume: CachedVolume) -> None:
    """One expert's detections on a slice, with their scores."""
    found, hit = case.detections[name], case.hit[name]
    here = [(n, row) for n, d in enumerate(case.shown[name]) for row in found.boxes_of(d) if row[0] == z]
    for n, row in sorted(here, key=lambda pair: -found.scores[case.shown[name][pair[0]]])[:BOXES_PER_SLICE]:
        style = TRUE_POSITIVE if hit[n].any() else FALSE_POSITIVE
        score = found.scores[case.shown[name][n]]
        draw_box(axes, volume.geometry.boxes_to_cache(row[1:5])[0], style, f"{score:.2f}")


def typical_slices(slices: Sequence[int], key: int) -> list[int]:
    """The first, the key and the last slice of a lesion and two between them, in order; all of a short one.

    Args:
        slices: on which its box is known, in order.
        key: one of them.
    """
    at = list(slices).index(key)
    chosen = np.unique(np.linspace(0, len(slices) - 1, COLUMNS).round().astype(int))
    if at not in chosen:
        chosen[1 + np.abs(chosen[1:-1] - at).argmin()] = at
    return [slices[i] for i in chosen]


def marked_slices(record: dict, lesion: dict) -> set[int]:
    """Slices of a lesion on which another one has its RECIST mark, near enough to be seen in a figure with it.

    Args:
        record: with all lesions.
        lesion: of it.
    """
    middle = _middle([row[1:] for row in lesion["boxes"]])
    slices = {row[0] for row in lesion["boxes"]}
    near = set()
    for other in record["lesions"]:
        if other["recist"] is not None and other["key_slice"] in slices:
            apart = (np.reshape(other["recist"], (4, 2)).mean(axis=0) - middle) * record["spacing"][:2]
            near |= {other["key_slice"]} if (np.abs(apart) < FIELD_MM / 2).all() else set()
    return near


def _middle(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """(2,) x, y of the middle of boxes."""
    low, high = np.array(boxes)[:, :2].min(axis=0), np.array(boxes)[:, 2:].max(axis=0)
    return (low + high) / 2


def key_slice_of(lesion: dict, marked: Collection[int] = ()) -> int:
    """Slice of a lesion's mark; without a mark that of its largest box.

    Args:
        lesion: of a record.
        marked: slices of :func:`marked_slices`; if it has boxes there, the largest of these counts.
    """
    if lesion["key_slice"] is not None:
        return lesion["key_slice"]
    boxes = [box for box in lesion["boxes"] if box[0] in marked] or lesion["boxes"]
    return max(boxes, key=lambda box: (box[3] - box[1]) * (box[4] - box[2]))[0]


def draw_harvested(path: Path, cases: Sequence[tuple[dict, dict, CachedVolume]]) -> None:
    """Draw a row for each lesion, of up to five slices from its first to its last (Lesion-Harvester, Fig. 10).

    All lesions of the record are drawn where they are on these slices, and the crosses of RECIST marks.

    Args:
        path: of the picture.
        cases: record with its marked and its mined lesions, the lesion, and the cached sub-volume; at least one.
    """
    figure, grid = make_sheet(len(cases) * COLUMNS, COLUMNS, INCHES, 1.0)
    for number, (record, lesion, volume) in enumerate(cases):
        geometry = volume.geometry
        key = key_slice_of(lesion, marked_slices(record, lesion))
        slices = typical_slices(sorted({box[0] for box in lesion["boxes"]}), key)
        outline = geometry.boxes_to_cache(hull(np.array(lesion["boxes"]))[[0, 1, 3, 4]])[0]
        for column, z in enumerate(slices):
            axes = grid[number * COLUMNS + column]
            hu = volume.read(geometry.slices_to_cache([z]))[0]
            title = f"{record['volume']}\n" if column == 0 else "\n"
            show_slice(axes, hu, choose_window(hu, outline), f"{title}slice {z + record['first_slice']}")
            _draw_lesions(axes, record, z, volume)
            _look_at(axes, (outline[:2] + outline[2:]) / 2, volume)
    add_legend(figure, [MARKED, MINED])
    with whole_file(path) as temporary:
        figure.savefig(temporary, facecolor="black")


def _draw_lesions(axes: Axes, record: dict, z: int, volume: CachedVolume) -> None:
    for lesion in record["lesions"]:
        for box in lesion["boxes"]:
            if box[0] == z and lesion["status"] in STYLE_OF_STATUS:
                draw_box(axes, volume.geometry.boxes_to_cache(box[1:])[0], STYLE_OF_STATUS[lesion["status"]])
        if lesion["recist"] is not None and lesion["key_slice"] == z:
            ends = volume.geometry.points_to_cache(np.reshape(lesion["recist"], (4, 2)))
            for color, axis in zip(CROSS, (ends[:2], ends[2:]), strict=True):
                draw_line(axes, axis, color)


def _look_at(axes: Axes, center: np.ndarray, volume: CachedVolume) -> None:
    """Show the surroundings of a point of a slice, inside the slice as far as it is large enough."""
    pixel = np.linalg.norm(volume.geometry.cache_affine[:3, 0])
    half = FIELD_MM / pixel / 2
    (x, y), (height, width) = center, volume.shape[1:]
    x, y = (np.clip(v, min(half, side / 2), max(side - half, side / 2)) for v, side in ((x, width), (y, height)))
    axes.set(xlim=(x - half - 0.5, x + half - 0.5), ylim=(y + half - 0.5, y - half - 0.5))
