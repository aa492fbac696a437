"""LENS's protocol: 3D boxes, FROC (LENS, Section VI-C, and the script released with its 1,000 sub-volumes)."""

from __future__ import annotations

import numpy as np

from ..froc import FrocEvents
from ..overlap import OVERLAPS, BoxColumns, chunked_pairs, overlapping_pairs, volume_ranges
from ..sets import BoxDetections, BoxTruth
from .protocol import PROTOCOLS, Match, Protocol, first_hits, rank_by_score


@PROTOCOLS.register()
class lens3d(Protocol):
    """In descending score, a detection whose best overlap is below the threshold is a false positive; any other
    hits every lesion at or above the threshold that is not hit yet. A repeated hit counts neither way.

    Args:
        metric: IOU, IOBB (intersection over the detection), IOGT (over the lesion), IOBBGT (the larger of both).
        threshold: least overlap of a hit.
        fps: false positives per volume to read the sensitivity at.
    """

    name = "lens3d"

    def __init__(self, metric: str = "IOBB", threshold: float = 0.3, fps=None):
        super().__init__(fps)
        if metric not in OVERLAPS:
            raise ValueError(f"no metric {metric!r}; there are {', '.join(OVERLAPS)}")
        self.metric, self.threshold = metric, threshold

    def pairs(self, truth: BoxTruth, detections: BoxDetections) -> tuple[np.ndarray, np.ndarray]:
        """(p,) detection and (p,) lesion of every hit."""
        start, count = volume_ranges(truth.volume, len(truth.volumes))
        boxes, lesions = BoxColumns(detections.boxes), BoxColumns(truth.boxes)
        hits = [
            overlapping_pairs(boxes, lesions, pairs, self.metric, self.threshold)
            for pairs in chunked_pairs(start[detections.volume], count[detections.volume])
        ]
        return tuple(np.concatenate(column) for column in zip(*hits, strict=True))

    def match(self, truth: BoxTruth, detections: BoxDetections) -> Match:
        order, rank = rank_by_score(detections.scores)
        detection, lesion = self.pairs(truth, detections)
        is_hit = np.zeros(len(detections), dtype=bool)
        is_hit[detection] = True
        fp_rank = np.flatnonzero(~is_hit[order])
        events = FrocEvents(
            fp_rank=fp_rank,
            fp_volume=detections.volume[order[fp_rank]],
            hit_rank=first_hits(lesion, rank[detection], len(truth)),
            lesion_volume=truth.volume,
            num_volumes=len(truth.volumes),
            num_ranks=len(detections),
        )
        return Match(events, {"metric": self.metric, "threshold": self.threshold})
