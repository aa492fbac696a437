"""Pictures of slices with boxes, for people to look at."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ..data.cache import CachedVolume, VolumeCache, build_cache
from ..evaluation.overlap import overlap
from ..io.files import whole_file
from ..io.formats import FileFrame
from ..structures.boxes import hull
from ..structures.detections import VolumeDetections

# Display windows, (low, high) HU.
WINDOWS = {"lung": (-1350.0, 150.0), "soft tissue": (-160.0, 240.0), "bone": (-450.0, 1050.0)}
BONE_HU = 250.0  # above contrast-enhanced organs
LUNG_HU = (-950.0, -600.0)  # aerated lung; gas in the bowel and air around the body lie below
# As in Fig. 3 and 5 of the LENS paper: green is right, red a false positive, yellow a lesion that was missed.
SOLID, DASHED, DOTTED = "solid", (0, (3, 2)), (0, (1, 1.5))  # matplotlib's line styles
BOXES_PER_SLICE = 8  # right ones, then the best: more hide the picture
HIT, FALSE_POSITIVE, MISSED = "#39d353", "#ff4d4d", "#ffd33d"


def choose_window(hu: np.ndarray, box: np.ndarray | None) -> str:
    """The display window for a lesion: lung where it or its surroundings are mostly aerated lung, bone where a
    quarter of it is as dense as bone.

    Args:
        hu: (H, W) slice. box: XYXY_ABS in it, or None for the whole slice.
    """
    if box is None:
        return "soft tissue"
    x1, y1, x2, y2 = np.round(box).astype(int)
    margin = max(4, (x2 - x1) // 2)
    around = hu[max(y1 - margin, 0) : y2 + margin, max(x1 - margin, 0) : x2 + margin]
    if around.size and np.mean((around > LUNG_HU[0]) & (around < LUNG_HU[1])) > 0.3:
        return "lung"
    inside = hu[max(y1, 0) : max(y2, y1 + 1), max(x1, 0) : max(x2, x1 + 1)]
    if inside.size and np.mean(inside > BONE_HU) > 0.25:
        return "bone"
    return "soft tissue"


def show_slice(axes: Axes, hu: np.ndarray, window: str, aspect_text: str = "") -> None:
    """Draw a slice (H, W) as radiologists see it: from the feet, the patient's right on the left."""
    low, high = WINDOWS[window]
    axes.imshow(hu, cmap="gray", vmin=low, vmax=high, interpolation="bicubic")
    axes.set_axis_off()
    label = f"{aspect_text}  ({window} window)" if aspect_text else f"{window} window"
    axes.set_title(label, fontsize=8, color="0.85", loc="left")


def draw_box(axes: Axes, box: np.ndarray, color: str, text: str = "", line=SOLID) -> None:
    """Draw a box XYXY_ABS (pixel edges) on a slice shown by :func:`show_slice`; ``line`` is matplotlib's style."""
    x1, y1, x2, y2 = box
    axes.add_patch(
        Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=color, lw=1.2, ls=line, snap=False)
    )
    if text:
        axes.text(x2 + 0.5, y1 - 0.5, text, color=color, fontsize=6.5, va="bottom", ha="left", clip_on=True)


def hits(detections: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """(n, m) bool: which of (n, 6) 3D boxes hits which of (m, 6), by LENS's protocol (IoBB of at least 0.3).

    Both in the volume frame: x and y in edges, first and last slice.
    """
    found, true = FileFrame().to_file(detections, 0), FileFrame().to_file(lesions, 0)
    pairs = overlap(np.repeat(found, len(true), axis=0), np.tile(true, (len(found), 1)), "IOBB")
    return pairs.reshape(len(found), len(true)) >= 0.3


class OverlayWriter(DatasetEvaluator):
    """Draws the first sub-volumes of a dataset with lesions and detections; has no numbers to report."""

    def __init__(
        self,
        cache: VolumeCache,
        output_dir: str | Path,
        count: int,
        output: str = "fused",
        score_thresh: float = 0.1,
    ):
        """
        Args:
            cache: of the preprocessed volumes.
            output_dir: gets ``<sub-volume>.png``.
            count: sub-volumes to draw.
            output: whose detections are drawn: "fused" or an expert's name.
            score_thresh: detections below it are not drawn (Fig. 5).
        """
        self.cache, self.output_dir = cache, Path(output_dir)
        self.count, self.output, self.score_thresh = count, output, score_thresh
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, output_dir: str | Path) -> OverlayWriter:
        return cls(build_cache(cfg), output_dir, cfg.TEST.OVERLAYS, cfg.MODEL.LENS.OUTPUT)

    def reset(self) -> None:
        self.left = self.count

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for record, output in zip(inputs, outputs, strict=True):
            if self.left and record["lesions"]:
                self.left -= 1
                self.output_dir.mkdir(parents=True, exist_ok=True)
                path = self.output_dir / f"{record['volume']}.png"
                found = output["detections"][self.output]
                draw_overlay(path, record, found, self.cache.open(record), self.score_thresh)

    def evaluate(self) -> dict:
        return {}


def draw_overlay(
    path: Path, record: dict, detections: VolumeDetections, volume: CachedVolume, score_thresh: float = 0.1
) -> None:
    """Draw the slices of a sub-volume that show the most, with lesions and detections, to a PNG file.

    Args:
        path: of the picture. record: of the sub-volume. detections: in the volume frame.
        volume: the cached sub-volume. score_thresh: detections below it are not drawn.
    """
    truth = [(lesion, np.array(lesion["boxes"], dtype=float).reshape(-1, 5)) for lesion in record["lesions"]]
    shown = np.flatnonzero(detections.scores >= score_thresh)
    lesions3d = np.array([hull(boxes) for _, boxes in truth]).reshape(-1, 6)
    hit = hits(detections.boxes[shown], lesions3d)
    slices = _slices_worth_showing([boxes for _, boxes in truth], detections, shown, hit)

    columns = min(len(slices), 3)
    rows = -(-len(slices) // columns)
    height, width = volume.shape[1:]
    figure, grid = plt.subplots(
        rows, columns, squeeze=False, figsize=(4.2 * columns, 4.2 * rows * height / width + 0.7), facecolor="black"
    )
    for axes in grid.flat[len(slices) :]:
        axes.set_axis_off()
    to_cache = volume.geometry.boxes_to_cache
    for axes, z in zip(grid.flat, slices, strict=False):
        on_slice = [(i, row[1:]) for i, (_, boxes) in enumerate(truth) for row in boxes if row[0] == z]
        found = [(n, b) for n, d in enumerate(shown) for b in detections.boxes_of(d) if b[0] == z]
        ranked = sorted(found, key=lambda pair: (not hit[pair[0]].any(), -detections.scores[shown[pair[0]]]))
        found = ranked[:BOXES_PER_SLICE]
        hu = volume.read(volume.geometry.slices_to_cache([z]))[0]
        first = on_slice[0][1] if on_slice else (found[0][1][1:5] if found else None)
        window = choose_window(hu, None if first is None else to_cache(first)[0])
        show_slice(axes, hu, window, f"slice {z + record['first_slice']}")
        for i, box in on_slice:
            draw_box(axes, to_cache(box)[0], HIT if hit[:, i].any() else MISSED, line=DASHED)
        for n, row in found:
            color = HIT if hit[n].any() else FALSE_POSITIVE
            draw_box(axes, to_cache(row[1:5])[0], color, f"{detections.scores[shown[n]]:.2f}")
    _legend(figure, record["volume"])
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="black")
    plt.close(figure)


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
        if len(own):
            middles.append(int(own[len(own) // 2]))
    for d in shown[np.argsort(-detections.scores[shown])][:6]:
        own = detections.boxes_of(d)
        middles.append(int(own[len(own) // 2, 0]))
    return sorted(dict.fromkeys(middles).keys() if len(set(middles)) <= 6 else list(dict.fromkeys(middles))[:6])


def _legend(figure, name: str) -> None:
    entries = [
        Line2D([], [], color=HIT, ls=DASHED, label="lesion, found"),
        Line2D([], [], color=MISSED, ls=DASHED, label="lesion, missed"),
        Line2D([], [], color=HIT, label="detection, right"),
        Line2D([], [], color=FALSE_POSITIVE, label="detection, false positive"),
    ]
    figure.suptitle(name, color="white", fontsize=10, x=0.01, ha="left")
    figure.legend(handles=entries, loc="lower center", ncols=4, fontsize=8, frameon=False, labelcolor="white")
    figure.tight_layout(rect=(0, 0.05, 1, 0.99))
