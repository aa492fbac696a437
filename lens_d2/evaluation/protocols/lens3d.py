"""LENS's protocol: 3D boxes, FROC (LENS, Section VI-C, and the script released with its 1,000 sub-volumes)."""

from __future__ import annotations

import numpy as np

from ..curves import FrocEvents
from ..overlap import OVERLAPS, BoxColumns, chunked_pairs, overlapping_pairs, volume_ranges
from ..sets import BoxDetections, BoxTruth
from .protocol import PROTOCOLS, Match, Protocol, by_score, first_hits, ranks_of_hits


@PROTOCOLS.register()
class lens3d(Protocol):
    """In descending score, a detection whose best overlap is below the threshold is a false positive; any other
    hits every lesion at or above the threshold that is not hit yet. A repeated hit counts neither way.

    Args:
        metric: IOU, IOBB (intersection over the detection), IOGT (over the lesion) or IOBBGT (the larger of both).
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
        lesions = BoxColumns(truth.boxes)
        hits = []
        for rows, detection, lesion in chunked_pairs(start[detections.volume], count[detections.volume]):
            boxes = BoxColumns(detections.boxes[rows])
            detection, lesion = overlapping_pairs(boxes, lesions, (detection, lesion), self.metric, self.threshold)
            hits.append((detection + rows.start, lesion))
        return tuple(np.concatenate(column) for column in zip(*hits, strict=True))

    def match(self, truth: BoxTruth, detections: BoxDetections) -> Match:
        """Match 3D boxes."""
        order = by_score(detections.scores)
        detection, lesion = self.pairs(truth, detections)
        rank, fp_rank = ranks_of_hits(order, detection)
        events = FrocEvents(
            fp_rank=fp_rank,
            fp_volume=detections.volume[order[fp_rank]],
            hit_rank=first_hits(lesion, rank, len(truth)),
            lesion_volume=truth.volume,
            num_volumes=len(truth.volumes),
            num_ranks=len(detections),
        )
        return Match(events, {"metric": self.metric, "threshold": self.threshold})
