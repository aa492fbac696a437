"""Scores that mean something: thresholds for a rate of false positives, and probabilities.

Both are found on validation patients, travel in the checkpoint, and serve predictions on new scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from ..structures.scores import log_odds
from .protocols.lens3d import lens3d
from .sets import BoxDetections, BoxTruth

FPS = (0.5, 1.0, 4.0)


@dataclass(frozen=True)
class OperatingPoints:
    """Thresholds and calibration of one detector's scores.

    Attributes:
        thresholds: {false positives per sub-volume: lowest score that counts}.
        slope, intercept: the log odds of being a lesion are ``slope * logit(score) + intercept`` (Platt scaling).
        source: what they were found on, for people to read.
    """

    thresholds: Mapping[float, float]
    slope: float = 1.0
    intercept: float = 0.0
    source: str = ""

    def probability(self, scores: Sequence[float] | np.ndarray) -> np.ndarray:
        """(n,) share of detections with each of (n,) scores that were lesions on the validation patients."""
        return expit(self.slope * log_odds(scores) + self.intercept)

    def rate(self, score: float) -> float | None:
        """Fewest false positives per sub-volume at which a score counts; None below all thresholds."""
        return min((fps for fps, threshold in self.thresholds.items() if score >= threshold), default=None)

    def to_dict(self) -> dict:
        """Plain data, for a checkpoint."""
        return {
            "thresholds": {str(fps): threshold for fps, threshold in self.thresholds.items()},
            "slope": self.slope,
            "intercept": self.intercept,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, content: Mapping) -> OperatingPoints:
        """The operating points that :meth:`to_dict` gave.

        Raises:
            ValueError: the content is of another kind.
        """
        try:
            thresholds = {float(fps): float(score) for fps, score in content["thresholds"].items()}
            return cls(
                thresholds, float(content["slope"]), float(content["intercept"]), str(content.get("source", ""))
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no operating points ({error!r})") from None


def find_operating_points(
    truth: BoxTruth, detections: BoxDetections, fps: Sequence[float] = FPS, source: str = ""
) -> OperatingPoints:
    """Thresholds and calibration on a completely annotated set, matched as in LENS's protocol (Section VI-C).

    Args:
        truth: all lesions of the set.
        detections: all detections, their scores in [0, 1].
        fps: false positives per sub-volume.
        source: what the set is.
    """
    detection, _ = lens3d().pairs(truth, detections)
    is_lesion = np.zeros(len(detections), dtype=bool)
    is_lesion[detection] = True
    wrong = detections.scores[~is_lesion]
    thresholds = {}
    for rate in fps:
        floor = floor_at(wrong, len(truth.volumes), rate)
        none = max(1.0, np.nextafter(floor, np.inf))  # false positives of score 1 can be too many
        thresholds[float(rate)] = float(detections.scores[detections.scores > floor].min(initial=none))
    slope, intercept = fit_calibration(detections.scores, is_lesion)
    return OperatingPoints(thresholds, slope, intercept, source)


def floor_at(false_scores: np.ndarray, num_volumes: int, fps: float) -> float:
    """Score that detections have to exceed for a sub-volume to have ``fps`` false positives at most, on average.

    Args:
        false_scores: (n,) of all false positives.
        num_volumes: sub-volumes that they are from.
        fps: false positives per sub-volume.

    Returns:
        the score, or -inf if all false positives together are not too many.
    """
    allowed = int(fps * num_volumes)
    return float(np.sort(false_scores)[::-1][allowed]) if allowed < len(false_scores) else -np.inf


def fit_calibration(scores: np.ndarray, is_lesion: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of Platt scaling on log odds, with his smoothed targets (Platt 1999).

    The slope is not negative: calibration never turns the order of detections around.

    Args:
        scores: (n,) in [0, 1].
        is_lesion: (n,) bool.
    """
    positives, negatives = int(is_lesion.sum()), int((~is_lesion).sum())
    target = np.where(is_lesion, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    odds = log_odds(scores)

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * odds + parameters[1]
        return float(-(target * log_expit(z) + (1 - target) * log_expit(-z)).mean()) if len(z) else 0.0

    found = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return float(found.x[0]), float(found.x[1])
