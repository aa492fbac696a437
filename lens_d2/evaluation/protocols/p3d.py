"""Lesion-Harvester's protocol: detections in 3D, lesions marked on one slice each (its Section III-E)."""

from __future__ import annotations

import numpy as np

from ...structures.boxes import PLANE, expand_ranges
from ..curves import FrocEvents, average_precision, precision_recall, read_extrapolating, recall_at_precision
from ..overlap import BoxColumns, overlapping_pairs, volume_ranges
from ..sets import BoxTruth, Tracklets
from .protocol import LENS_FPS, PROTOCOLS, Match, Protocol, by_score, first_hits, ranks_of_hits

PRECISIONS = (0.80, 0.85, 0.90, 0.95)  # at which recalls are reported ...
RECALLS = tuple(f"R@{100 * p:.0f}P" for p in PRECISIONS)  # ... under these names
CHUNK = 1 << 16  # slice boxes looked up at a time, to fit the processor's cache


@PROTOCOLS.register()
class p3d(Protocol):
    """A lesion on slice z is hit by a detection whose box on z has a 2D IoU of at least the threshold.

    FROC counts as LENS's does: a repeated hit counts neither way. In the precision-recall curve each lesion that a
    detection overlaps counts by itself: a true positive when newly hit, a false positive when hit before. If a
    detection has two boxes on one slice, the first one counts, as in the released script.

    Args:
        threshold: least 2D IoU of a hit.
        fps: false positives per volume to read the sensitivity at.
    """

    name = "p3d"
    count_side = "left"
    default_fps = (*LENS_FPS, 16.0)

    def __init__(self, threshold: float = 0.5, fps=None):
        super().__init__(fps)
        self.threshold = threshold

    def read(self, fps: np.ndarray, sensitivity: np.ndarray) -> np.ndarray:
        """(k,) sensitivity of a curve at ``self.fps``, extrapolated beyond its ends."""
        return read_extrapolating(fps, sensitivity, self.fps)

    def pairs(self, truth: BoxTruth, detections: Tracklets) -> tuple[np.ndarray, np.ndarray]:
        """(p,) detection and (p,) lesion of every hit, each pair once."""
        box, slice_of_box, slice_of_lesion, num_slices = _same_slices(truth, detections)
        owner = detections.slice_detection
        if not _one_box_a_slice(detections):
            first = np.unique(owner[box] * num_slices + slice_of_box, return_index=True)[1]
            box, slice_of_box = box[first], slice_of_box[first]
        by_slice = np.argsort(slice_of_lesion, kind="stable")
        start, count = volume_ranges(slice_of_lesion, num_slices)
        row, member = expand_ranges(start[slice_of_box], count[slice_of_box])
        marks, boxes = BoxColumns(truth.boxes[:, PLANE]), BoxColumns(detections.slice_boxes[box])
        row, lesion = overlapping_pairs(boxes, marks, (row, by_slice[member]), "IOU", self.threshold)
        return owner[box[row]], lesion

    def match(self, truth: BoxTruth, detections: Tracklets) -> Match:
        """Match boxes on the slices that have a lesion."""
        order = by_score(detections.scores)
        detection, lesion = self.pairs(truth, detections)
        rank, fp_rank = ranks_of_hits(order, detection)
        overlapped = np.bincount(rank, minlength=len(detections))
        hit_rank = first_hits(lesion, rank, len(truth))
        newly_hit = np.bincount(hit_rank[hit_rank >= 0], minlength=len(detections))
        precision, recall = precision_recall(
            newly_hit, np.where(overlapped == 0, 1, overlapped - newly_hit), len(truth)
        )
        events = FrocEvents(
            fp_rank=fp_rank,
            fp_volume=detections.volume[order[fp_rank]],
            hit_rank=hit_rank,
            lesion_volume=truth.volume,
            num_volumes=len(truth.volumes),
            num_ranks=len(detections),
        )
        at = {name: recall_at_precision(precision, recall, p) for name, p in zip(RECALLS, PRECISIONS, strict=True)}
        metrics = {
            "threshold": self.threshold,
            "ap": average_precision(precision, recall),
            "recall_at_precision": {**at, "mean": float(np.mean(list(at.values())))},
        }
        return Match(events, metrics, precision, recall)

    def recall_of(self, truth: BoxTruth, annotations: Tracklets) -> float:
        """Share of lesions that a set of annotations, all taken as right, contains (R@100P)."""
        return len(np.unique(self.pairs(truth, annotations)[1])) / max(len(truth), 1)


def _same_slices(truth: BoxTruth, detections: Tracklets) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Number the slices that have a lesion, and find the detections' boxes on them.

    Returns:
        (b,) slice boxes on one of these slices, ascending; (b,) slice of each; (L,) slice of each lesion; number
        of slices.
    """
    heights, height = np.unique(truth.boxes[:, 2], return_inverse=True)
    codes, slice_of_lesion = np.unique(truth.volume * len(heights) + height, return_inverse=True)
    if not len(codes):
        return *(np.zeros(0, dtype=np.int64) for _ in range(3)), 0
    found = []
    for start in range(0, max(len(detections.slice_z), 1), CHUNK):
        chunk = slice(start, start + CHUNK)
        z = detections.slice_z[chunk]
        height = np.minimum(np.searchsorted(heights, z), len(heights) - 1)
        code = detections.volume[detections.slice_detection[chunk]] * len(heights) + height
        place = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
        box = np.flatnonzero((heights[height] == z) & (codes[place] == code))
        found.append((box + start, place[box]))
    box, slice_of_box = (np.concatenate(column) for column in zip(*found, strict=True))
    return box, slice_of_box, slice_of_lesion, len(codes)


def _one_box_a_slice(detections: Tracklets) -> bool:
    """Tell whether the slices of every detection ascend, so that none has two boxes on one."""
    same = detections.slice_detection[1:] == detections.slice_detection[:-1]
    return not np.any(same & (detections.slice_z[1:] <= detections.slice_z[:-1]))
