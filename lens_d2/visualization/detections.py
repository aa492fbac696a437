"""Overlays of detections on slices, beside the lesions that are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.cache import CachedVolume, VolumeCache, build_cache
from ..evaluation.operating_points import floor_at
from ..evaluation.overlap import overlap
from ..io.files import whole_file
from ..io.formats import FileFrame
from ..structures.boxes import boxes_through, hull
from ..structures.detections import FUSED, VolumeDetections
from .planes import choose_window
from .sheets import DASHED, SOLID, BoxStyle, add_legend, draw_box, make_sheet, show_slice

# As in Fig. 3 and 5 of the LENS paper: green is right, red a false positive, yellow a lesion that was missed.
FOUND = BoxStyle("#39d353", DASHED, "lesion, found")
MISSED = BoxStyle("#ffd33d", DASHED, "lesion, missed")
RIGHT = BoxStyle("#39d353", SOLID, "detection, right")
FALSE_POSITIVE = BoxStyle("#ff4d4d", SOLID, "detection, false positive")
MIN_IOBB = 0.3  # of a detection and the lesion that it hits, in LENS's protocol
BOXES_PER_SLICE = 8  # right ones, then the best: more hide the picture
SLICES, COLUMNS, INCHES = 6, 3, 4.2  # on a sheet; slices side by side; width of one


def hits(detections: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Pairs of detections and the lesions that they hit by LENS's protocol.

    Args:
        detections, lesions: (n, 6) and (m, 6) 3D boxes in the volume frame.

    Returns:
        (n, m) bool.
    """
    found, true = FileFrame().to_file(detections, 0), FileFrame().to_file(lesions, 0)
    pairs = overlap(np.repeat(found, len(true), axis=0), np.tile(true, (len(found), 1)), "IOBB")
    return pairs.reshape(len(found), len(true)) >= MIN_IOBB


class OverlayWriter(DatasetEvaluator):
    """Draws the first sub-volumes of a dataset that have lesions; reports no numbers.

    Detections are those at the operating point: the score at which a sub-volume has ``fps`` false positives.
    """

    def __init__(
        self,
        cache: VolumeCache,
        output_dir: str | Path,
        count: int,
        output: str = FUSED,
        fps: float = 1.0,
    ):
        """
        Args:
            cache: of the preprocessed volumes.
            output_dir: gets ``<sub-volume>.png``.
            count: sub-volumes to draw.
            output: ``FUSED``, or the expert whose detections are drawn.
            fps: false positives per sub-volume, counted over all sub-volumes of the evaluation.
        """
        self.cache, self.output_dir = cache, Path(output_dir)
        self.count, self.output, self.fps = count, output, fps
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, output_dir: str | Path) -> OverlayWriter:
        """A writer for a config's cache and output."""
        return cls(build_cache(cfg), output_dir, cfg.TEST.OVERLAYS, cfg.MODEL.LENS.OUTPUT)

    def reset(self) -> None:
        """Start anew with the first sub-volume."""
        self.kept: list[tuple[dict, VolumeDetections]] = []
        self.false_scores: list[np.ndarray] = []  # of each sub-volume

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the sub-volumes of a batch that will be drawn, and the scores of all false positives.

        Args:
            inputs: their records.
            outputs: what :class:`lens_d2.inference.volume.VolumeInference` gives for them.
        """
        for record, output in zip(inputs, outputs, strict=True):
            found = output["detections"][self.output]
            truth = np.array([hull(lesion_boxes(x, record["num_slices"])) for x in record["lesions"]])
            self.false_scores.append(found.scores[~hits(found.boxes, truth.reshape(-1, 6)).any(axis=1)])
            if len(self.kept) < self.count and record["lesions"]:
                self.kept.append((record, found))

    def evaluate(self) -> dict:
        """Draw on the first rank what all ranks have kept; pictures have no metrics."""
        shares = comm.gather((self.false_scores, self.kept))
        scores = [own for of_rank, _ in shares for own in of_rank]
        kept = [own for _, of_rank in shares for own in of_rank]
        false = np.concatenate([np.zeros(0), *scores])
        score_thresh = np.nextafter(floor_at(false, len(scores), self.fps), np.inf)
        for record, found in kept[: self.count]:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            path = self.output_dir / f"{record['volume']}.png"
            draw_overlay(path, record, found, self.cache.open(record), score_thresh)
        return {}


def draw_overlay(
    path: Path, record: dict, detections: VolumeDetections, volume: CachedVolume, score_thresh: float = 0.1
) -> None:
    """Draw the most telling slices of a sub-volume with lesions and detections.

    Args:
        path: of the PNG file.
        record: of the sub-volume; at least one lesion, or a detection that is drawn.
        detections: in the volume frame.
        volume: the cached sub-volume.
        score_thresh: detections below it are not drawn.
    """
    truth = [lesion_boxes(lesion, record["num_slices"]) for lesion in record["lesions"]]
    shown = np.flatnonzero(detections.scores >= score_thresh)
    lesions3d = np.array([hull(boxes) for boxes in truth]).reshape(-1, 6)
    hit = hits(detections.boxes[shown], lesions3d)
    slices = _slices_worth_showing(truth, detections, shown, hit)

    height, width = volume.shape[1:]
    figure, grid = make_sheet(len(slices), COLUMNS, INCHES, height / width)
    to_cache = volume.geometry.boxes_to_cache
    for axes, z in zip(grid, slices, strict=True):
        on_slice = [(i, row[1:]) for i, boxes in enumerate(truth) for row in boxes if row[0] == z]
        found = [(n, b) for n, d in enumerate(shown) for b in detections.boxes_of(d) if b[0] == z]
        ranked = sorted(found, key=lambda pair: (not hit[pair[0]].any(), -detections.scores[shown[pair[0]]]))
        found = ranked[:BOXES_PER_SLICE]
        hu = volume.read(volume.geometry.slices_to_cache([z]))[0]
        first = on_slice[0][1] if on_slice else (found[0][1][1:5] if found else None)
        window = choose_window(hu, None if first is None else to_cache(first)[0])
        show_slice(axes, hu, window, f"slice {z + record['first_slice']}")
        for i, box in on_slice:
            draw_box(axes, to_cache(box)[0], FOUND if hit[:, i].any() else MISSED)
        for n, row in found:
            style = RIGHT if hit[n].any() else FALSE_POSITIVE
            draw_box(axes, to_cache(row[1:5])[0], style, f"{detections.scores[shown[n]]:.2f}")
    figure.suptitle(record["volume"], color="white", fontsize=10, x=0.01, ha="left")
    add_legend(figure, [FOUND, MISSED, RIGHT, FALSE_POSITIVE])
    with whole_file(path) as temporary:
        figure.savefig(temporary, facecolor="black")


def lesion_boxes(lesion: dict, num_slices: int) -> np.ndarray:
    """(k, 5) slice boxes of a record's lesion, those of its 3D box if it has no others."""
    boxes = lesion["boxes"] or boxes_through(lesion["box3d"], num_slices)
    return np.array(boxes, dtype=np.float64).reshape(-1, 5)


def _slices_worth_showing(
    truth: list[np.ndarray], detections: VolumeDetections, shown: np.ndarray, hit: np.ndarray
) -> list[int]:
    """At most six slices, in order: the middle one of each lesion, then of the best detections.

    Of a lesion that is found, the middle one of those where its best detection is, too.
    """
    middles = []
    for boxes, right in zip(truth, hit.T, strict=True):
        own = boxes[:, 0]
        if right.any():
            best = max(shown[right], key=lambda d: detections.scores[d])
            both = np.intersect1d(own, detections.boxes_of(best)[:, 0])
            own = both if len(both) else own
        middles.append(int(own[len(own) // 2]))
    for d in shown[np.argsort(-detections.scores[shown])][:SLICES]:
        own = detections.boxes_of(d)
        middles.append(int(own[len(own) // 2, 0]))
    return sorted(list(dict.fromkeys(middles))[:SLICES])
