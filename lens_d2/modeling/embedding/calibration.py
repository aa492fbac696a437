"""Calibration of the embedding distance below which two boxes count as one lesion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ...data.same_lesions import Mark, MarkPairs, pair_marks

MIN_PAIRS = 10  # of one lesion, below which nothing is calibrated


@dataclass(frozen=True)
class MatchingDistance:
    """A matching distance, and how well it tells lesions apart.

    Attributes:
        distance: delta.
        calibrated: whether it follows from the pairs; else it is the configured one.
        same_pairs: number of pairs of marks of one lesion.
        different_pairs: number of pairs of marks of two lesions.
        precision: share of same-lesion pairs among those nearer than delta, NaN without any.
        recall: share of the same-lesion pairs that are nearer than delta.
        same_quartiles: of the distances of same-lesion pairs.
        different_quartiles: of the distances of the others.
    """

    distance: float
    calibrated: bool
    same_pairs: int
    different_pairs: int
    precision: float
    recall: float
    same_quartiles: list[float]
    different_quartiles: list[float]

    def to_dict(self) -> dict:
        """Attributes by name, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        origin = "calibrated" if self.calibrated else "as configured: the annotations have too few near pairs"
        return (
            f"matching distance {self.distance:.4f} ({origin}); {self.same_pairs} pairs of one lesion and "
            f"{self.different_pairs} of two: precision {self.precision:.3f}, recall {self.recall:.3f}"
        )


def calibrate(
    embed: Callable[[list], np.ndarray], marks: Sequence[Mark], precision: float, default: float
) -> MatchingDistance:
    """Calibrate the distance below which two boxes count as one lesion, on pairs of marks of known identity.

    Args:
        embed: of :class:`LesionEmbedder`.
        marks: of :func:`lens_d2.data.same_lesions.collect_marks`.
        precision: see :func:`choose_distance`.
        default: the distance if there are too few pairs.
    """
    pairs = pair_marks(marks)
    involved = np.unique([pairs.first, pairs.second]).astype(int)
    place = {number: i for i, number in enumerate(involved.tolist())}
    embedding = embed([(marks[i].record, marks[i].slice, marks[i].box) for i in involved]).astype(np.float64)
    first, second = ([place[i] for i in numbers.tolist()] for numbers in (pairs.first, pairs.second))
    return summarize(np.linalg.norm(embedding[first] - embedding[second], axis=1), pairs, precision, default)


def choose_distance(distances: np.ndarray, same: np.ndarray, precision: float) -> float | None:
    """Find the largest distance below which at least a share of the pairs are same-lesion pairs.

    Args:
        distances: (p,) of pairs.
        same: (p,) bool.
        precision: the share.

    Returns:
        The distance, half-way to the next pair; None if fewer than ``MIN_PAIRS`` same-lesion pairs lie below any.
    """
    order = np.argsort(distances, kind="stable")
    distances, same = distances[order], same[order]
    matched = np.cumsum(same)
    good = (matched >= MIN_PAIRS) & (matched >= precision * np.arange(1, len(same) + 1))
    limits = np.append((distances[:-1] + distances[1:]) / 2, np.nextafter(distances[-1:], np.inf))
    chosen = np.flatnonzero(good & (limits > distances))  # of several pairs at one distance, all count or none
    return float(limits[chosen[-1]]) if len(chosen) else None


def summarize(distances: np.ndarray, pairs: MarkPairs, precision: float, default: float) -> MatchingDistance:
    """Calibration from the distances of pairs, with the other arguments of :func:`calibrate`."""
    chosen = choose_distance(distances, pairs.same, precision)
    distance = default if chosen is None else chosen
    near = distances < distance
    return MatchingDistance(
        distance,
        chosen is not None,
        int(pairs.same.sum()),
        int((~pairs.same).sum()),
        float(pairs.same[near].mean()) if near.any() else float("nan"),
        float(near[pairs.same].mean()) if pairs.same.any() else float("nan"),
        _quartiles(distances[pairs.same]),
        _quartiles(distances[~pairs.same]),
    )


def _quartiles(distances: np.ndarray) -> list[float]:
    return np.quantile(distances, [0.25, 0.5, 0.75]).tolist() if len(distances) else []
