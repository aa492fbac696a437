"""FROC and precision-recall curves from plain arrays: no files, no framework, no geometry.

A protocol (see ``protocols/``) matches detections with lesions and gives :class:`FrocEvents`. Everything after
that, the curve, its intervals and its strata, is counting. This field reads curves in two ways, which differ if
several points share the requested count of false positives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import interp1d


@dataclass(frozen=True)
class FrocEvents:
    """False positives and first hits, in the order in which a falling score threshold lets them in.

    A rank is a step of that threshold, 0 for the highest score; events of equal rank enter together.

    Attributes:
        fp_rank: (F,) ascending.
        fp_volume: (F,) volume of each false positive, from 0.
        hit_rank: (L,) rank at which each lesion is first hit; -1 if it never is.
        lesion_volume: (L,) volume of each lesion.
        num_volumes: all volumes, empty ones included.
        num_ranks: steps of the threshold.
    """

    fp_rank: np.ndarray
    fp_volume: np.ndarray
    hit_rank: np.ndarray
    lesion_volume: np.ndarray
    num_volumes: int
    num_ranks: int

    @property
    def num_lesions(self) -> int:
        """All lesions, hit or not."""
        return len(self.hit_rank)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(num_ranks,) false positives and (num_ranks,) lesions hit, down to and including each rank."""
        fp = np.bincount(self.fp_rank, minlength=self.num_ranks)
        hit = np.bincount(self.hit_rank[self.hit_rank >= 0], minlength=self.num_ranks)
        return np.cumsum(fp), np.cumsum(hit)

    def of_lesions(self, chosen: np.ndarray) -> FrocEvents:
        """The same false positives with the (L,) bool ``chosen`` lesions."""
        return FrocEvents(
            self.fp_rank,
            self.fp_volume,
            self.hit_rank[chosen],
            self.lesion_volume[chosen],
            self.num_volumes,
            self.num_ranks,
        )


def froc_curve(events: FrocEvents) -> tuple[np.ndarray, np.ndarray]:
    """Points of the curve as a loop over the sorted detections gives them.

    Returns:
        (num_ranks,) false positives per volume and (num_ranks,) sensitivities; 0 without a lesion.
    """
    fp, hit = events.counts()
    return fp / max(events.num_volumes, 1), hit / max(events.num_lesions, 1)


def froc_curve_by_rates(events: FrocEvents) -> tuple[np.ndarray, np.ndarray]:
    """Points of the curve as LUNA16's script derives them from a ROC curve, one per distinct probability.

    The curve starts at (0, 0). Without a false positive every point lies at 0. The script's rounding is kept: it
    multiplies rates back to counts, and whether a count is met exactly depends on the last bit.

    Returns:
        (num_ranks + 1,) false positives per volume and (num_ranks + 1,) sensitivities.
    """
    fp, hit = (np.concatenate([[0.0], counts]) for counts in events.counts())
    all_fp, all_hit = fp[-1], hit[-1]
    fps = fp / all_fp * all_fp / events.num_volumes if all_fp else np.zeros_like(fp)
    sensitivity = hit / all_hit * all_hit / events.num_lesions if all_hit else np.zeros_like(hit)
    return fps, sensitivity


def read_highest(fps: np.ndarray, sensitivity: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(k,) sensitivity of a curve as LENS's and LUNA16's scripts read it.

    It is linear between points, 0 left of the first and the last value right of the last. If several points share
    the requested count, the highest sensitivity counts.

    Args:
        fps, sensitivity: (n,) the curve, both ascending.
        at: (k,) false positives per volume.
    """
    if len(fps) == 0:
        return np.zeros(len(at))
    return np.interp(at, fps, sensitivity, left=0.0)


def read_extrapolating(fps: np.ndarray, sensitivity: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(k,) sensitivity of a curve as Lesion-Harvester's script reads it, with SciPy's ``interp1d``.

    It is linear between points and beyond both ends. If several points share the requested count, the lowest
    sensitivity counts. Where SciPy's value is not finite, as its line is vertical or a single point, an end's
    sensitivity takes its place: the first point's up to that point, the last point's elsewhere.

    Args:
        fps, sensitivity, at: as in :func:`read_highest`.
    """
    if len(fps) == 0:
        return np.zeros(len(at))
    line = interp1d(fps, sensitivity, fill_value="extrapolate", assume_sorted=True, copy=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = line(np.asarray(at, dtype=float))
    ends = np.where(np.asarray(at) <= fps[0], sensitivity[0], sensitivity[-1])
    return np.where(np.isfinite(values), values, ends)


def precision_recall(
    hits: np.ndarray, false_positives: np.ndarray, num_lesions: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) precision and (n,) recall after each detection.

    Args:
        hits, false_positives: (n,) counts that each detection adds, in descending score.
        num_lesions: all lesions.
    """
    hit, fp = np.cumsum(hits), np.cumsum(false_positives)
    return hit / np.maximum(hit + fp, np.finfo(np.float64).eps), hit / max(num_lesions, 1)


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """VOC's area under the monotone envelope of the precision-recall curve (all points, not eleven)."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


def recall_at_precision(precision: np.ndarray, recall: np.ndarray, at: float) -> float:
    """The highest recall at which the precision is still ``at`` (Lesion-Harvester, Table I); 0 if it never is."""
    enough = precision >= at
    return float(recall[enough].max()) if enough.any() else 0.0
