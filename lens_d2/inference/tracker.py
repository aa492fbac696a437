"""Stacking of boxes on slices to 3D proposals (Lesion-Harvester, Section III-B2).

Boxes on neighbouring slices are stacked by a Kalman filter; each stack is then extended by a slice up and down,
and fused with another that it meets there. All boxes are XYXY pixel edges of the volume frame, slices are counted
from 0 in the sub-volume.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from detectron2.config import CfgNode
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..structures.boxes import expand_ranges, pairwise_iou, rows_by_slice
from ..structures.detections import VolumeDetections
from .kalman import BoxStates, Noise, to_boxes
from .linking import LINKER_REGISTRY, highest, stack_tracklets

NOISE = Noise()


@LINKER_REGISTRY.register()
@dataclass(frozen=True)
class BoxTracker:
    """Stacks the boxes of one sub-volume to 3D proposals.

    Attributes:
        score_thresh: boxes without a higher score are left out; t_G in harvesting.
        iou: least IoU of a box with the filter's prediction of it.
        extend: slices by which a stack is extended up and down.
        fuse_iou: least IoU of two stacks that are fused, on the slices where they meet when extended.
        noise: of the filter.
    """

    score_thresh: float = 0.1
    iou: float = 0.8
    extend: int = 1
    fuse_iou: float = 0.8
    noise: Noise = NOISE

    @classmethod
    def from_config(cls, cfg: CfgNode, score_thresh: float) -> BoxTracker:
        """Make the tracker of TEST.TRACKER."""
        keys = cfg.TEST.TRACKER
        return cls(score_thresh, keys.IOU, keys.EXTEND, keys.FUSE_IOU, Noise(*map(float, keys.NOISE)))

    def __post_init__(self):
        if not (0 < self.iou <= 1 and 0 < self.fuse_iou <= 1):
            raise ValueError(f"TEST.TRACKER: an IoU of {self.iou} or {self.fuse_iou} is not in (0, 1]")

    def __call__(
        self, slice_boxes: np.ndarray, num_slices: int, expert_scores: np.ndarray | None = None
    ) -> VolumeDetections:
        """Stack the boxes of a sub-volume.

        Args:
            slice_boxes: (n, 6) z, x1, y1, x2, y2, score of single slices.
            num_slices: of the sub-volume.
            expert_scores: (n, E) or None; each proposal gets every expert's highest score among its boxes.

        Returns:
            3D proposals. x and y are the means of the boxes, weighted by their scores; the score is the highest
            of them (s_g). Boxes on slices that were added, where nothing was detected, have the score 0.
        """
        boxes = np.asarray(slice_boxes, dtype=np.float64).reshape(-1, 6)
        sound = (boxes[:, 5] > self.score_thresh) & (boxes[:, 1:3] < boxes[:, 3:5]).all(axis=1)
        if expert_scores is not None:  # they go along as further columns
            boxes = np.column_stack([boxes, expert_scores])
        boxes = boxes[sound]
        tracklet = track(boxes[:, 0], boxes[:, 1:5], self.iou, self.noise)
        order = np.lexsort((boxes[:, 0], tracklet))
        boxes, tracklet, fills = fuse(boxes[order], tracklet[order], self.fuse_iou, self.extend)
        found = _stack(boxes[:, :6], tracklet, fills, self.extend, num_slices)
        if expert_scores is not None:
            found = replace(found, expert_scores=highest(boxes[:, 6:], tracklet, len(found)))
        return found


def track(slices: np.ndarray, boxes: np.ndarray, gate: float, noise: Noise = NOISE) -> np.ndarray:
    """Group the boxes of one volume into tracklets.

    A tracklet continues with the box on the next slice that is assigned to the filter's prediction; without such a
    box it ends.

    Args:
        slices: (n,) whole numbers.
        boxes: (n, 4), with an area.
        gate: least IoU of a box with the prediction.
        noise: of the filter.

    Returns:
        (n,) number of each box's tracklet, from 0 in order of the first slice.
    """
    tracklet = np.full(len(slices), -1, dtype=np.int64)
    count, last_z, last = 0, None, np.zeros(0, np.int64)
    states = BoxStates.start(np.zeros((0, 4)), noise)
    for z, group in rows_by_slice(slices).items():
        here = boxes[group]
        now = BoxStates.start(here, noise)
        if last_z is not None and z == last_z + 1:
            expected = states.predict(noise)
            rows, columns = assign(pairwise_iou(to_boxes(expected.value), here), gate)
            seen = expected.update(rows, here[columns], noise)
            for name in ("value", "velocity", "covariance"):
                getattr(now, name)[columns] = getattr(seen, name)
            tracklet[group[columns]] = tracklet[last[rows]]
        new = group[tracklet[group] < 0]
        tracklet[new] = count + np.arange(len(new))
        count += len(new)
        last_z, last, states = z, group, now
    return tracklet


def assign(iou: np.ndarray, gate: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair rows with columns one to one such that the sum of their IoU is largest, none below the gate.

    Args:
        iou: (n, m).
        gate: above 0.

    Returns:
        (k,) rows and (k,) columns of the pairs.
    """
    gain = np.where(iou >= gate, iou, 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    paired = gain[rows, columns] > 0
    return rows[paired], columns[paired]


def fuse(
    boxes: np.ndarray, tracklet: np.ndarray, gate: float, extend: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join tracklets that meet when each is extended by ``extend`` slices.

    An extension repeats the outermost box. Two tracklets meet if the extended ones share a slice and the
    tracklets themselves do not; they are joined if their outermost boxes have an IoU of at least ``gate``. The
    nearest ends are joined first, and each end once.

    Args:
        boxes: (n, 6 or more) z, x1, y1, x2, y2, score, and columns that go along.
        tracklet: (n,), from 0; rows of one stand together, z ascending.
        gate: least IoU.
        extend: slices.

    Returns:
        the boxes and those between joined tracklets, z, x1, y1, x2, y2 interpolated and the rest 0; the number
        of each one's tracklet; and whether it is interpolated. In the same order as the arguments.
    """
    first = np.flatnonzero(np.diff(tracklet, prepend=-1))
    last = np.append(first[1:], len(tracklet)) - 1 if len(tracklet) else first
    below, above = _joints(boxes[first], boxes[last], gate, extend)
    count = len(first)
    joined = coo_array((np.ones(len(below)), (below, above)), shape=(count, count))
    label = connected_components(joined, directed=False)[1] if count else np.zeros(0, np.int64)
    gap = (boxes[first[above], 0] - boxes[last[below], 0] - 1).astype(np.int64)
    owner, step = expand_ranges(np.ones_like(gap), gap)
    low, high = boxes[last[below[owner]], :5], boxes[first[above[owner]], :5]
    between = low + (high - low) * (step / (gap[owner] + 1))[:, None]
    filled = np.zeros((len(between), boxes.shape[1] - between.shape[1]))
    everything = np.concatenate([boxes, np.column_stack([between, filled])])
    numbers = np.concatenate([label[tracklet], label[below[owner]]]).astype(np.int64)
    is_interpolated = np.arange(len(everything)) >= len(boxes)
    order = np.lexsort((everything[:, 0], numbers))
    return everything[order], numbers[order], is_interpolated[order]


def _joints(first: np.ndarray, last: np.ndarray, gate: float, extend: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the joined tracklets: (j,) of those below, (j,) of those above."""
    joined_end, joined_start = np.zeros(len(last), bool), np.zeros(len(first), bool)
    below, above = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    ends_on, starts_on = rows_by_slice(last[:, 0]), rows_by_slice(first[:, 0])
    for distance in range(1, 2 * extend + 1):
        for z, ends in ends_on.items():
            starts = starts_on.get(z + distance, below[0])
            ends, starts = ends[~joined_end[ends]], starts[~joined_start[starts]]
            rows, columns = assign(pairwise_iou(last[ends, 1:5], first[starts, 1:5]), gate)
            below.append(ends[rows])
            above.append(starts[columns])
            joined_end[below[-1]], joined_start[above[-1]] = True, True
    return np.concatenate(below), np.concatenate(above)


def _stack(
    boxes: np.ndarray, tracklet: np.ndarray, is_interpolated: np.ndarray, extend: int, num_slices: int
) -> VolumeDetections:
    """3D proposals of tracklets, extended within the volume. Rows of a tracklet stand together."""
    if not len(boxes):
        return VolumeDetections()
    detected = ~is_interpolated
    boxes3d, scores = stack_tracklets(
        boxes[detected, 0], boxes[detected, 1:5], boxes[detected, 5], tracklet[detected]
    )
    first = np.flatnonzero(np.diff(tracklet, prepend=-1))
    last = np.append(first[1:], len(tracklet)) - 1
    added, owners = [boxes], [tracklet]
    for distance in range(1, extend + 1):
        for ends, step in ((first, -distance), (last, distance)):
            copies = boxes[ends].copy()
            copies[:, 0] += step
            copies[:, 5] = 0.0
            inside = (copies[:, 0] >= 0) & (copies[:, 0] < num_slices)
            added.append(copies[inside])
            owners.append(tracklet[ends][inside])
    rows, owner = np.concatenate(added), np.concatenate(owners)
    order = np.lexsort((rows[:, 0], owner))
    rows, owner = rows[order], owner[order]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    boxes3d[:, 2], boxes3d[:, 5] = rows[starts, 0], rows[np.append(starts[1:], len(owner)) - 1, 0]
    return VolumeDetections(boxes3d, scores, rows, owner)
