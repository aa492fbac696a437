"""Metric study of Lesion-Harvester (Section IV-B, Fig. 7 and 11): do cheaper metrics rank as 3D IoU does?

All metrics see the same tracklets, those of 3D boxes stacked: first to last slice, x and y weighted by the slices'
scores (LENS, Section IV-C).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..structures.boxes import expand_ranges, stack_slice_boxes
from .overlap import overlap, volume_ranges
from .protocols import PROTOCOLS
from .sets import BoxDetections, BoxTruth, Tracklets

FPS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
REFERENCE = "3D IoU"


@dataclass(frozen=True)
class StudyTruth:
    """Three kinds of annotations of the same sub-volumes, pixels and slices counted alike.

    Attributes:
        boxes3d: 3D boxes, z from 0 in the sub-volume.
        marks: every lesion on one slice (complete RECIST).
        key_marks: the original marks (incomplete RECIST).
    """

    boxes3d: BoxTruth
    marks: BoxTruth
    key_marks: BoxTruth


def stack(tracklets: Tracklets) -> BoxDetections:
    """Tracklets as 3D boxes. Only slices with a positive score have weight; without any, all weigh alike."""
    rows = tracklets.slice_z, tracklets.slice_boxes, tracklets.slice_scores
    boxes = stack_slice_boxes(*rows, tracklets.slice_detection, len(tracklets))
    return BoxDetections(tracklets.volume, boxes, tracklets.scores)


def on_key_slices(tracklets: Tracklets, marks: BoxTruth) -> tuple[BoxTruth, Tracklets]:
    """Incomplete RECIST as a task of its own: each marked slice is a volume, each box on it a detection."""
    keys, lesion_key = np.unique(np.column_stack([marks.volume, marks.boxes[:, 2]]), axis=0, return_inverse=True)
    lesion_key = lesion_key.reshape(-1)
    index = {(int(v), z): number for number, (v, z) in enumerate(keys)}
    order = np.argsort(lesion_key, kind="stable")
    names = [f"{marks.volumes[int(v)]}, slice {z:g}" for v, z in keys]
    flat = marks.boxes[order].copy()
    flat[:, [2, 5]] = 0.0
    truth = BoxTruth(names, lesion_key[order], flat)

    volume = tracklets.volume[tracklets.slice_detection].tolist()
    key = np.array(
        [index.get(where, -1) for where in zip(volume, tracklets.slice_z.tolist(), strict=True)], dtype=int
    )
    rows = np.flatnonzero(key >= 0)
    single = Tracklets(
        volume=key[rows],
        scores=tracklets.slice_scores[rows],
        slice_detection=np.arange(len(rows)),
        slice_z=np.zeros(len(rows)),
        slice_boxes=tracklets.slice_boxes[rows],
        slice_scores=tracklets.slice_scores[rows],
    )
    return truth, single


def _recalls_3d(metric: str) -> Callable:
    def recalls(truth: StudyTruth, tracklets: Tracklets) -> list[float]:
        protocol = PROTOCOLS.get("lens3d")(metric=metric, threshold=0.3, fps=FPS)
        return protocol.evaluate(truth.boxes3d, stack(tracklets)).metrics["sensitivity"]

    return recalls


def _recalls_p3d(truth: StudyTruth, tracklets: Tracklets) -> list[float]:
    return PROTOCOLS.get("p3d")(threshold=0.5, fps=FPS).evaluate(truth.marks, tracklets).metrics["sensitivity"]


def _recalls_recist(truth: StudyTruth, tracklets: Tracklets) -> list[float]:
    """2D IoU of 0.5 on the marked key slices, false positives per key slice."""
    task = on_key_slices(tracklets, truth.key_marks)
    return PROTOCOLS.get("p3d")(threshold=0.5, fps=FPS).evaluate(*task).metrics["sensitivity"]


# (truth, tracklets) -> the recalls at FPS.
METRICS: dict[str, Callable[[StudyTruth, Tracklets], list[float]]] = {
    REFERENCE: _recalls_3d("IOU"),
    "incomplete RECIST": _recalls_recist,
    "P3D": _recalls_p3d,
    "IoBB": _recalls_3d("IOBB"),
}


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation; None if one of the two does not vary."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def concordance(recalls: dict[str, dict[str, list[float]]]) -> dict[str, float | None]:
    """Correlation of the recalls under each metric with those under 3D IoU, over all detectors and rates.

    Args:
        recalls: {detector: {metric: recalls at FPS}}.

    Returns:
        {metric: Pearson's correlation}.
    """
    reference = np.concatenate([of[REFERENCE] for of in recalls.values()])
    others = [metric for metric in METRICS if metric != REFERENCE]
    return {
        metric: pearson(reference, np.concatenate([of[metric] for of in recalls.values()])) for metric in others
    }


def best_iou(truth: BoxTruth, detections: BoxDetections) -> np.ndarray:
    """3D IoU of each lesion with the stacked box that fits it best, for lesions that any box meets (Fig. 11).

    Returns:
        (found,) in (0, 1].
    """
    start, count = volume_ranges(truth.volume, len(truth.volumes))
    detection, lesion = expand_ranges(start[detections.volume], count[detections.volume])
    best = np.zeros(len(truth))
    np.maximum.at(best, lesion, overlap(detections.boxes[detection], truth.boxes[lesion], "IOU"))
    return best[best > 0]


def quartiles(values: np.ndarray) -> dict:
    """Numbers of the violins: how many lesions, and the three quartiles (None without a value)."""
    if not len(values):
        return {"lesions": 0, "quartiles": None}
    return {"lesions": len(values), "quartiles": np.percentile(values, [25, 50, 75]).tolist()}
