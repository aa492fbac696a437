"""LUNA16's protocol: points in world coordinates, FROC over the challenge's seven rates (its released script)."""

from __future__ import annotations

import numpy as np

from ...structures.boxes import expand_ranges
from ..curves import FrocEvents, froc_curve_by_rates
from ..overlap import volume_ranges
from ..sets import Candidates, NoduleTruth
from .protocol import PROTOCOLS, Evaluation, Match, Protocol, first_hits


@PROTOCOLS.register()
class luna16(Protocol):
    """A candidate hits a nodule if it is nearer to the centre than the nodule's radius; of several the one with
    the highest probability counts and the others are ignored. A candidate that hits no nodule is ignored as well
    if it lies on an excluded finding; the rest are the false positives.

    Args:
        max_candidates: of a scan with more, only the candidates strictly above the next highest probability (the
            101st) are kept.
        fps: false positives per scan to read the sensitivity at.
    """

    name = "luna16"
    unit = "scan"

    def __init__(self, max_candidates: int = 100, fps=None):
        super().__init__(fps)
        self.max_candidates = max_candidates

    def curve(self, events: FrocEvents) -> tuple[np.ndarray, np.ndarray]:
        """(n,) false positives per scan and (n,) sensitivities, from rates."""
        return froc_curve_by_rates(events)

    def kept(self, candidates: Candidates, num_volumes: int) -> np.ndarray:
        """(n,) bool mask of the candidates that take part."""
        keep = np.ones(len(candidates), dtype=bool)
        crowded = np.bincount(candidates.volume, minlength=num_volumes) > self.max_candidates
        if not crowded.any():
            return keep
        by_volume = np.argsort(candidates.volume, kind="stable")
        start, count = volume_ranges(candidates.volume[by_volume], num_volumes)
        for volume in np.flatnonzero(crowded):
            rows = by_volume[start[volume] : start[volume] + count[volume]]
            scores, next_best = candidates.scores[rows], count[volume] - self.max_candidates - 1
            keep[rows] = scores > np.partition(scores, next_best)[next_best]
        return keep

    def match(self, truth: NoduleTruth, candidates: Candidates) -> Match:
        """Match points with nodules and excluded findings."""
        keep = self.kept(candidates, len(truth.volumes))
        candidates = Candidates(candidates.volume[keep], candidates.points[keep], candidates.scores[keep])
        candidate, finding = _pairs(truth, candidates)
        on_nodule = finding < len(truth)
        hits_nodule, hits_excluded = (np.zeros(len(candidates), dtype=bool) for _ in range(2))
        hits_nodule[candidate[on_nodule]] = True
        hits_excluded[candidate[~on_nodule]] = True
        false_positive = ~hits_nodule & ~hits_excluded

        candidate, nodule = candidate[on_nodule], finding[on_nodule]
        order, rank, num_ranks = _ranks(candidates.scores, hits_nodule | false_positive)
        hit_rank = first_hits(nodule, rank[candidate], len(truth))
        fp = order[false_positive[order]]
        events = FrocEvents(
            fp_rank=rank[fp],
            fp_volume=candidates.volume[fp],
            hit_rank=hit_rank,
            lesion_volume=truth.volume,
            num_volumes=len(truth.volumes),
            num_ranks=num_ranks,
        )
        found = int(np.sum(hit_rank >= 0))
        metrics = {
            "num_scans": len(truth.volumes),
            "num_candidates_kept": len(candidates),
            "true_positives": found,
            "false_positives": len(fp),
            "false_negatives": len(truth) - found,
            "ignored_excluded": int(np.sum(hits_excluded & ~hits_nodule)),
            "ignored_double": len(nodule) - found,
        }
        return Match(events, metrics)

    def evaluate(self, truth: NoduleTruth, detections: Candidates) -> Evaluation:
        """Score candidates; ``cpm`` is the challenge's name for the average sensitivity."""
        evaluation = super().evaluate(truth, detections)
        evaluation.metrics["cpm"] = evaluation.metrics["average_sensitivity"]
        return evaluation


def _ranks(scores: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The chosen candidates in descending score, (n,) rank of each, and the number of distinct scores."""
    order = np.flatnonzero(chosen)
    order = order[np.argsort(-scores[order])]
    sorted_scores = scores[order]
    new = np.r_[len(order) > 0, sorted_scores[1:] != sorted_scores[:-1]][: len(order)]
    rank = np.full(len(scores), -1)
    rank[order] = np.cumsum(new) - 1
    return order, rank, int(np.sum(new))


def _pairs(truth: NoduleTruth, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """(p,) candidate and (p,) finding nearer than the finding's radius; nodules come first, then excluded ones.

    The candidates are sorted by scan and z, so that a finding is compared with those in its own slab alone.
    """
    volume = np.concatenate([truth.volume, truth.excluded_volume])
    centers = np.concatenate([truth.centers, truth.excluded_centers])
    radius = np.concatenate([truth.diameters, truth.excluded_diameters]) / 2.0
    if not len(volume) or not len(candidates):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    low, high = (centers[:, 2] - radius).min(), (centers[:, 2] + radius).max()
    pitch = 2.0 * (high - low) + 1.0  # of the scans on the common axis of (scan, z)
    margin = 1e-9 * (abs(low) + abs(high) + pitch * len(truth.volumes))
    place = candidates.volume * pitch + np.clip(candidates.points[:, 2], low, high)
    by_place = np.argsort(place)
    place = place[by_place]
    middle = volume * pitch + centers[:, 2]
    start = np.searchsorted(place, middle - radius - margin)
    count = np.searchsorted(place, middle + radius + margin, side="right") - start
    finding, member = expand_ranges(start, count)
    candidate, limit, squared = by_place[member], radius[finding] ** 2, np.zeros(len(finding))
    for axis in (0, 1, 2):
        squared = squared + (centers[finding, axis] - candidates.points[candidate, axis]) ** 2
        near = squared < limit
        candidate, finding, squared, limit = candidate[near], finding[near], squared[near], limit[near]
    same = candidates.volume[candidate] == volume[finding]
    return candidate[same], finding[same]
