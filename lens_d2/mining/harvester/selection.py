"""Selection of lesions and hard negatives among proposals (Lesion-Harvester, Sections III-A, III-C and III-E)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...structures.detections import VolumeDetections
from ...structures.known_boxes import KnownBoxes, best_overlap, tracklet_overlaps
from ...structures.status import BoxStatus
from ..calibration import lowest_score

NONE = -1


def marks_hit(found: VolumeDetections, record: dict, iou: float = 0.5) -> tuple[np.ndarray, list[str]]:
    """Find the marks of a record that its proposals hit, by P3D (Section III-E).

    Args:
        found: n proposals.
        record: of their sub-volume.
        iou: least IoU with a mark of a proposal's box on the mark's slice.

    Returns:
        (n,) number of the mark that each proposal overlaps most, :data:`NONE` if it hits none; and the ids of the
        marks that the numbers stand for.
    """
    known = KnownBoxes.of_record(record).of_status(BoxStatus.LESION)
    if not len(known) or not len(found):
        return np.full(len(found), NONE), known.lesions
    overlap = tracklet_overlaps(found, known)
    best = overlap.argmax(axis=1)
    return np.where(overlap.max(axis=1) >= iou, best, NONE), known.lesions


def smallest_threshold(scores: np.ndarray, is_lesion: np.ndarray, precision: float = 0.95) -> float:
    """Find the smallest score from which on more than a share of the proposals are lesions (Section III-C).

    Args:
        scores: (n,) of the proposals on the completely annotated volumes.
        is_lesion: (n,) bool.
        precision: the share.

    Returns:
        one of the scores; infinity if none will do, so that nothing is harvested.
    """
    return lowest_score(scores, is_lesion, lambda lesions, taken: lesions > precision * taken)


def select_hard_negatives(
    scores: np.ndarray, eligible: np.ndarray, least: float = 0.5, most: int = 5
) -> np.ndarray:
    """Select the hard negatives among the proposals of one volume.

    Args:
        scores: (n,) s_g.
        eligible: (n,) bool, whether a proposal may be one.
        least: score that a hard negative has at least.
        most: hard negatives of a volume.

    Returns:
        (k,) rows, the highest score first.
    """
    rows = np.flatnonzero(eligible & (scores >= least))
    return rows[np.argsort(-scores[rows], kind="stable")][:most]


def on_lesions(found: VolumeDetections, lesions: Sequence[np.ndarray], iou: float = 0.5) -> np.ndarray:
    """Mask of the proposals that are one of the lesions.

    Args:
        found: n proposals of a volume.
        lesions: of the same volume, (k, 5 or more) slice boxes z, x1, y1, x2, y2 of each.
        iou: least IoU on a slice of both.

    Returns:
        (n,) bool.
    """
    known = KnownBoxes()
    for number, boxes in enumerate(lesions):
        known.add(str(number), boxes, BoxStatus.LESION)
    return best_overlap(found, known) >= iou if len(known) else np.zeros(len(found), dtype=bool)
