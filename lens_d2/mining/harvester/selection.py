"""Which proposals are lesions, which are hard negatives (Lesion-Harvester, Sections III-A, III-C and III-E)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...structures.detections import VolumeDetections
from ...structures.known_boxes import KnownBoxes, tracklet_overlaps
from ...structures.status import BoxStatus

NONE = -1


def marks_hit(found: VolumeDetections, record: dict, iou: float = 0.5) -> tuple[np.ndarray, list[str]]:
    """Which marks of a record its proposals hit, by P3D (Section III-E).

    A proposal hits a mark where its box on the mark's slice has an IoU of at least ``iou`` with it.

    Returns:
        (n,) for each proposal the number of the mark that it overlaps most, :data:`NONE` where it hits none; and
        the ids of the marks that the numbers stand for.
    """
    known = KnownBoxes.of_record(record).of_status(BoxStatus.LESION)
    if not len(known) or not len(found):
        return np.full(len(found), NONE), known.lesions
    overlap = tracklet_overlaps(found, known)
    best = overlap.argmax(axis=1)
    return np.where(overlap.max(axis=1) >= iou, best, NONE), known.lesions


def smallest_threshold(scores: np.ndarray, is_lesion: np.ndarray, precision: float = 0.95) -> float:
    """The smallest score above which more than ``precision`` of the proposals are lesions (Section III-C).

    Args:
        scores, is_lesion: (n,) of the proposals on the completely annotated volumes.

    Returns:
        one of the scores, such that the proposals with at least this score have the precision; infinity where
        there is none, so that nothing is harvested.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    taken = np.arange(1, len(ranked) + 1)
    above = np.cumsum(is_lesion[order]) > precision * taken
    above[:-1] &= ranked[:-1] > ranked[1:]  # equal scores are taken together
    return float(ranked[above][-1]) if above.any() else float("inf")


def hardest(scores: np.ndarray, eligible: np.ndarray, least: float = 0.5, most: int = 5) -> np.ndarray:
    """The hard negatives of one volume: the ``most`` highest scores s_g of those that are at least ``least``.

    Args:
        scores: (n,) s_g. eligible: (n,) bool, whether it may be one.

    Returns:
        (k,) their rows, the highest score first.
    """
    rows = np.flatnonzero(eligible & (scores >= least))
    return rows[np.argsort(-scores[rows], kind="stable")][:most]


def on_lesions(found: VolumeDetections, lesions: Sequence[np.ndarray], iou: float = 0.5) -> np.ndarray:
    """(n,) bool: whether a proposal is one of the lesions, as on a slice of both the IoU is at least ``iou``.

    Args:
        lesions: of the same volume, (k, 5 or more) slice boxes z, x1, y1, x2, y2 of each.
    """
    known = KnownBoxes()
    for number, boxes in enumerate(lesions):
        known.add(str(number), boxes, BoxStatus.LESION)
    is_lesion = np.zeros(len(found), dtype=bool)
    covered = known.largest_overlap(found.slice_boxes) >= iou if len(known) else np.zeros(0, bool)
    is_lesion[found.slice_detection[: len(covered)][covered]] = True
    return is_lesion
