"""Tracklets that may be missing annotations, and findings that are labelled as a mark is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from ....io.errors import DataError
from ....structures.boxes import PLANE, pairwise_iou, size_classes, slice_box_sides
from ....structures.scores import log_odds
from ....structures.status import BoxStatus
from ...calibration import Calibration, Stratum
from .strategy import Finding, PatientVolume

RANK_CLIP = 1e-4  # scores are clipped to this distance from 0 and 1 where candidates are ranked


@dataclass(frozen=True)
class Candidates:
    """Tracklets of one sub-volume that are no known lesion.

    Attributes:
        tracklets: (n,) numbers, the highest rank first.
        ranks: (n,) log odds of the dataset's own expert, plus those of the best other one.
        strata: n, size class and expert.
    """

    tracklets: np.ndarray
    ranks: np.ndarray
    strata: list[Stratum]


def find_candidates(volume: PatientVolume, calibration: Calibration, score_thresh: float) -> Candidates:
    """Find the tracklets of the dataset's own expert that are no known lesion or hard negative, one a lesion.

    Args:
        volume: with its known boxes; a tracklet with a larger IoU than theta with one, on its slice, is known.
        calibration: has theta and the size classes.
        score_thresh: tracklets with a lower score of the dataset's own expert are left out.
    """
    group = volume.record["expert"]
    found, opinions = volume.detections[group], volume.opinions(group)
    ranks = log_odds(opinions.own, RANK_CLIP) + np.nan_to_num(log_odds(opinions.best_other, RANK_CLIP))
    known = volume.overlap_with_known(found, BoxStatus.LESION, BoxStatus.HARD_NEGATIVE) > calibration.iou
    rows = np.flatnonzero(~known & (opinions.own >= score_thresh))
    rows = rows[np.argsort(-ranks[rows], kind="stable")]
    rows = rows[_first_of_each(found.boxes[rows], calibration.iou)]
    sides = np.zeros(len(found))
    np.maximum.at(sides, found.slice_detection, slice_box_sides(found.slice_boxes, volume.record["spacing"]))
    classes = size_classes(sides[rows], calibration.sizes)
    strata: list[Stratum] = [
        (size, opinions.expert(row)) for size, row in zip(classes, rows.tolist(), strict=True)
    ]
    return Candidates(rows, ranks[rows], strata)


def on_best_slice(
    volume: str, lesion: str, slice_boxes: np.ndarray, is_lesion: bool, **values: Any
) -> list[Finding]:
    """Findings of a tracklet: a lesion on its best slice, as a mark is on its key slice, uncertain on the others.

    Args:
        volume: name of the sub-volume.
        lesion: id of the 3D lesion.
        slice_boxes: (k, 6) of the tracklet.
        is_lesion: False: all slices are uncertain.
        values: further fields of the findings.
    """
    best = (np.arange(len(slice_boxes)) == slice_boxes[:, 5].argmax()) & is_lesion
    parts = ("annotation", slice_boxes[best]), ("uncertain", slice_boxes[~best])
    return [Finding(volume, lesion, boxes, status, **values) for status, boxes in parts if len(boxes)]


def lesions_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by decreasing precision, those that are lesions before uncertain ones."""
    return sorted(findings, key=lambda finding: (finding.status != "annotation", -finding.precision))


def calibration_of(cfg: CfgNode, strategy: str) -> Calibration:
    """The calibration of a config.

    Raises:
        DataError: ``MINING.CALIBRATION.DATASET`` is empty, and the strategy needs it.
    """
    calibration = Calibration.from_config(cfg)
    if calibration is None:
        fault = f"empty: {strategy} needs a completely annotated part of the mined dataset, as deeplesion_vm"
        raise DataError("MINING.CALIBRATION.DATASET", fault)
    return calibration


def _first_of_each(boxes: np.ndarray, iou: float) -> np.ndarray:
    """Rows of (n, 6) 3D boxes that are neither a piece nor a double of an earlier one.

    Boxes belong to one lesion if they have this IoU in the plane, and their slices overlap or are adjacent.
    """
    kept: list[int] = []
    overlap = pairwise_iou(boxes[:, PLANE], boxes[:, PLANE])
    for row, box in enumerate(boxes):
        beside = (boxes[kept, 2] <= box[5] + 1) & (box[2] <= boxes[kept, 5] + 1)
        if not (beside & (overlap[row, kept] > iou)).any():
            kept.append(row)
    return np.array(kept, dtype=np.int64)
