"""Scoring of detections and proposals by a classifier (LENS, Section IV-D; Lesion-Harvester, Section III-C)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from detectron2.config import CfgNode
from scipy.special import expit
from torch import nn

from ..data.cache import CachedVolume, build_cache
from ..io.checkpoint import LENSCheckpointer
from ..modeling.classifiers import build_classifier
from ..structures.detections import VolumeDetections
from ..structures.scores import log_odds

Combine = Callable[[np.ndarray, np.ndarray], np.ndarray]


def mean(scores: np.ndarray, fpr_scores: np.ndarray) -> np.ndarray:
    """(n,) mean of both scores, as in the paper (Eq. 2)."""
    return (scores + fpr_scores) / 2


def mean_log_odds(scores: np.ndarray, fpr_scores: np.ndarray) -> np.ndarray:
    """(n,) probability whose log odds are the mean of both scores' log odds.

    A detector whose best scores are all near 1 tells them apart by their odds; in the mean of the scores, the
    classifier alone would order them.
    """
    return expit(mean(log_odds(scores), log_odds(fpr_scores)))


# MODEL.FPR.COMBINE: the final score, from the detector's and the classifier's.
SCORE_COMBINATIONS: dict[str, Combine] = {"mean": mean, "mean_log_odds": mean_log_odds}


def load_classifier(cfg: CfgNode, role: str = "FPR", weights: str | None = None) -> nn.Module:
    """Load the trained classifier ``MODEL.<role>``.

    Args:
        cfg: of the classifier.
        role: "FPR" or "LPC".
        weights: file of its checkpoint; None: ``MODEL.<role>.WEIGHTS``.

    Raises:
        DataError: the checkpoint is absent, damaged or of another architecture.
    """
    classifier = build_classifier(cfg, role)
    LENSCheckpointer(classifier, whole=True).load(weights or cfg.MODEL[role].WEIGHTS)
    return classifier.eval()


@torch.no_grad()
def classify(classifier: nn.Module, volume: CachedVolume, boxes: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Score a volume's detections with a classifier.

    Args:
        classifier: of the CLASSIFIER registry, trained.
        volume: in the cache frame.
        boxes: (n, 6) x1, y1, z1, x2, y2, z2 in the volume frame.
        batch_size: detections that are classified together.

    Returns:
        (n,) probabilities
    """
    device = next(classifier.parameters()).device
    scores = [np.zeros(0)]
    order = np.argsort(boxes[:, 2], kind="stable")  # a batch lies close together along z
    for start in range(0, len(boxes), batch_size):
        patches, inside = classifier.grid.crop(volume, boxes[order[start : start + batch_size]])
        logits = classifier(torch.from_numpy(patches)[:, None].to(device), torch.from_numpy(inside).to(device))
        scores.append(logits.sigmoid().double().cpu().numpy())
    result = np.zeros(len(boxes))
    result[order] = np.concatenate(scores)
    return result


def score_proposals(
    cfg: CfgNode, classifier: nn.Module, records: Iterable[dict], proposals: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Score 3D proposals with a classifier, volume after volume.

    Args:
        cfg: names the cache of the volumes, and ``MODEL.LPC.BATCH_SIZE_TEST``.
        classifier: of :func:`load_classifier`.
        records: of the volumes.
        proposals: (n, 6) boxes in the volume frame by sub-volume, looked up one after another.

    Yields:
        Name and (n,) probabilities of each sub-volume, in the order of the records; (0,) without proposals.
    """
    cache, batch_size = build_cache(cfg), cfg.MODEL.LPC.BATCH_SIZE_TEST
    for record in records:
        boxes = np.asarray(proposals.get(record["volume"], ()), dtype=np.float64).reshape(-1, 6)
        scores = classify(classifier, cache.open(record), boxes, batch_size) if len(boxes) else np.zeros(0)
        yield record["volume"], scores


def rescore(detections: VolumeDetections, fpr_scores: np.ndarray, combine: Combine = mean) -> VolumeDetections:
    """Combine the detector's scores of detections with a classifier's.

    Args:
        detections: n of one volume.
        fpr_scores: (n,) the classifier's.
        combine: of :data:`SCORE_COMBINATIONS`.

    Returns:
        The detections with their final scores; the boxes of single slices have their own score combined with their
        detection's, and 0 where nothing was detected.
    """
    slice_boxes = detections.slice_boxes.copy()
    combined = combine(slice_boxes[:, 5], fpr_scores[detections.slice_detection])
    slice_boxes[:, 5] = np.where(slice_boxes[:, 5] > 0, combined, 0.0)
    scores = combine(detections.scores, fpr_scores)
    return replace(detections, scores=scores, slice_boxes=slice_boxes, fpr_scores=fpr_scores)
