"""Linking of 2D boxes on slices to tracklets and 3D boxes.

Boxes are XYXY pixel edges; slices are consecutive integers. A *linker* (:data:`LINKER_REGISTRY`) is a class
with ``from_config(cfg, score_thresh)``. It is called with (n, 6) z, x1, y1, x2, y2, score of the boxes of one
volume, the number of its slices, and (n, E) scores of the experts or None, and gives :class:`VolumeDetections`
whose slices are numbered in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from detectron2.config import CfgNode
from fvcore.common.registry import Registry

from ..structures.boxes import match_best_first, pairwise_iou, rows_by_slice, stack_slice_boxes
from ..structures.detections import VolumeDetections

LINKER_REGISTRY = Registry("LINKER")
LINKER_REGISTRY.__doc__ = "Ways of linking boxes on slices to 3D detections, by the names that TEST.LINKER has."


@LINKER_REGISTRY.register()
@dataclass(frozen=True)
class OverlapLinker:
    """Links boxes of neighbouring slices that overlap (LENS, Section IV-C).

    Attributes:
        iou: theta, the IoU above which two boxes are linked.
        score_thresh: boxes with a lower score are left out.
    """

    iou: float = 0.5
    score_thresh: float = 0.0

    @classmethod
    def from_config(cls, cfg: CfgNode, score_thresh: float) -> OverlapLinker:
        """Make the linker of TEST.LINK_IOU."""
        return cls(cfg.TEST.LINK_IOU, score_thresh)

    def __call__(
        self, slice_boxes: np.ndarray, num_slices: int, expert_scores: np.ndarray | None = None
    ) -> VolumeDetections:
        """Stack the boxes of a volume.

        Args:
            slice_boxes: (n, 6) z, x1, y1, x2, y2, score.
            num_slices: of the volume.
            expert_scores: (n, E) or None; each detection gets every expert's highest score among its boxes.
        """
        keep = slice_boxes[:, 5] >= self.score_thresh
        rows = slice_boxes[keep]
        tracklet = link_slices(rows[:, 0].astype(np.int64), rows[:, 1:5], self.iou)
        boxes, scores = stack_tracklets(rows[:, 0], rows[:, 1:5], rows[:, 5], tracklet)
        order = np.lexsort((rows[:, 0], tracklet))
        best = None if expert_scores is None else highest(expert_scores[keep], tracklet, len(boxes))
        return VolumeDetections(boxes, scores, rows[order], tracklet[order], best)


def highest(scores: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """(count, E) highest of the (n, E) scores of each owner; 0 for one without rows."""
    best = np.zeros((count, scores.shape[1]))
    np.maximum.at(best, owner, scores)
    return best


def to_native_slices(found: VolumeDetections, slice_mm: np.ndarray, native_mm: np.ndarray) -> VolumeDetections:
    """Put detections on other slices onto the file's native ones.

    A detection covers the native slices whose centres lie within half an interval of its own slices, and at least
    the nearest; a detection on the last slice also covers the native slices beyond it. Each box moves to the
    nearest covered slice; if several boxes move to the same one, the box with the highest score stays. A covered
    slice without a box copies the nearest box.

    Args:
        found: with slices numbered as in ``slice_mm``.
        slice_mm: (s,) position of every slice along z, ascending, evenly spaced.
        native_mm: (m,) position of every native slice along z.
    """
    boxes = found.boxes.copy()
    half = (slice_mm[1] - slice_mm[0]) / 2 if len(slice_mm) > 1 else 0.0
    starts = np.searchsorted(found.slice_detection, np.arange(len(found) + 1))
    rows, owners = [found.slice_boxes[:0]], [found.slice_detection[:0]]
    for number, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
        own = found.slice_boxes[start:end]
        own_mm = slice_mm[own[:, 0].astype(np.int64)]
        end_mm = own_mm[-1] + half if own[-1, 0] < len(slice_mm) - 1 else np.inf
        covered = np.flatnonzero((native_mm >= own_mm[0] - half) & (native_mm < end_mm))
        if not len(covered):
            covered = np.abs(native_mm - own_mm.mean()).argmin(keepdims=True)
        distance = np.abs(native_mm[covered, None] - own_mm)
        chosen = distance.argmin(axis=1)
        by_score = np.argsort(own[:, 5], kind="stable")  # the last that is put into a place stays there
        chosen[distance.argmin(axis=0)[by_score]] = by_score
        boxes[number, [2, 5]] = covered[0], covered[-1]
        rows.append(np.column_stack([covered, own[chosen, 1:]]))
        owners.append(np.full(len(covered), number))
    return replace(found, boxes=boxes, slice_boxes=np.concatenate(rows), slice_detection=np.concatenate(owners))


def link_slices(slices: np.ndarray, boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Group the boxes of one volume into tracklets (LENS, Sections IV-C and V-A).

    Two boxes on neighbouring slices belong together if their IoU is above the threshold; a box has at most
    one such neighbour above and one below, the pair of largest IoU going first.

    Args:
        slices: (n,) integer slice of each box.
        boxes: (n, 4).
        threshold: of the IoU.

    Returns:
        (n,) number of each box's tracklet, from 0 in order of the first slice.
    """
    tracklet = np.full(len(slices), -1, dtype=np.int64)
    count, last_number, previous = 0, -2, None
    for number, group in rows_by_slice(slices).items():
        if previous is not None and number == last_number + 1:
            below, above = match_best_first(pairwise_iou(boxes[previous], boxes[group]), threshold)
            tracklet[group[above]] = tracklet[previous[below]]
        new = group[tracklet[group] < 0]
        tracklet[new] = count + np.arange(len(new))
        count += len(new)
        last_number, previous = number, group
    return tracklet


def stack_tracklets(
    slices: np.ndarray, boxes: np.ndarray, scores: np.ndarray, tracklet: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """3D boxes of tracklets, by :func:`~lens_d2.structures.boxes.stack_slice_boxes`, and their highest scores.

    Args:
        slices: (n,).
        boxes: (n, 4).
        scores: (n,).
        tracklet: (n,), as :func:`link_slices` gives it.

    Returns:
        (t, 6) x1, y1, z1, x2, y2, z2 (first and last slice, inclusive) and (t,) scores.
    """
    count = int(tracklet.max()) + 1 if len(tracklet) else 0
    best = np.zeros(count)
    np.maximum.at(best, tracklet, scores)
    return stack_slice_boxes(slices, boxes, scores, tracklet, count), best
