"""Base of all protocols: match, count, read the curve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from fvcore.common.registry import Registry

from ..curves import FrocEvents, froc_curve, read_highest

PROTOCOLS = Registry("PROTOCOL")
PROTOCOLS.__doc__ = """
Evaluation protocols by the name that ``tools/evaluate.py --protocol`` takes: subclasses of :class:`Protocol`.
"""

LENS_FPS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Match:
    """Result of matching: the events of the FROC curve, and what the protocol counts besides.

    Attributes:
        events: of the FROC curve.
        metrics: further numbers for metrics.json.
        precision, recall: (n,) of a precision-recall curve, or None.
    """

    events: FrocEvents
    metrics: dict = field(default_factory=dict)
    precision: np.ndarray | None = None
    recall: np.ndarray | None = None


@dataclass(frozen=True)
class Evaluation:
    """Result of a protocol.

    Attributes:
        metrics: content of metrics.json; plain numbers, lists and text, all finite.
        match: basis of the metrics, for the bootstrap and the strata.
        curve: (n,) false positives per volume and (n,) sensitivities.
    """

    metrics: dict
    match: Match
    curve: tuple[np.ndarray, np.ndarray]

    def froc(self) -> dict:
        """The curve as :func:`lens_d2.evaluation.plots.plot_froc` takes it."""
        kept = {key: self.metrics[key] for key in ("fps", "sensitivity")}
        average, interval = self.metrics["average_sensitivity"], self.metrics.get("sensitivity_ci")
        return {**kept, "curve": self.curve, "average": average, "ci": interval}


def single_numbers(metrics: Mapping) -> dict[str, float]:
    """An evaluation's metrics as single numbers: "average_sensitivity", "sensitivity@0.125" and so on, "ap"."""
    rates = zip(metrics["fps"], metrics["sensitivity"], strict=True)
    numbers = {f"sensitivity@{fps:g}": value for fps, value in rates}
    return {key: metrics[key] for key in ("average_sensitivity", "ap") if key in metrics} | numbers


class Protocol(ABC):
    """A way to score detections.

    Attributes:
        name: as on the command line.
        unit: what a volume is called.
        fps: (k,) false positives per volume at which the sensitivity is read.
        count_side: reading if several points of the curve share the requested count: "right" takes the highest of
            their sensitivities, "left" the lowest (the side of ``numpy.searchsorted``).
    """

    name: str
    unit = "sub-volume"
    count_side = "right"
    default_fps: tuple[float, ...] = LENS_FPS

    def __init__(self, fps: Sequence[float] | float | None = None):
        self.fps = np.atleast_1d(np.asarray(self.default_fps if fps is None else fps, dtype=float))

    @abstractmethod
    def match(self, truth, detections) -> Match:
        """Match detections with lesions; the types of the arguments are the protocol's own (see ``sets.py``)."""

    def curve(self, events: FrocEvents) -> tuple[np.ndarray, np.ndarray]:
        """(n,) false positives per volume and (n,) sensitivities."""
        return froc_curve(events)

    def read(self, fps: np.ndarray, sensitivity: np.ndarray) -> np.ndarray:
        """(k,) sensitivity of a curve at ``self.fps``."""
        return read_highest(fps, sensitivity, self.fps)

    def sensitivities(self, events: FrocEvents) -> np.ndarray:
        """(k,) sensitivity at ``self.fps``."""
        return self.read(*self.curve(events))

    def evaluate(self, truth, detections) -> Evaluation:
        """Score detections; arguments as of :meth:`match`."""
        match = self.match(truth, detections)
        curve = self.curve(match.events)
        sensitivity = self.read(*curve)
        metrics = {
            "protocol": self.name,
            "fps": self.fps.tolist(),
            "sensitivity": sensitivity.tolist(),
            "average_sensitivity": float(sensitivity.mean()),
            "num_volumes": len(truth.volumes),
            "num_lesions": len(truth),
            "num_detections": len(detections),
            **match.metrics,
        }
        return Evaluation(metrics, match, curve)


def first_hits(lesion: np.ndarray, rank: np.ndarray, num_lesions: int) -> np.ndarray:
    """(num_lesions,) lowest rank that hits each lesion; -1 without a hit.

    Args:
        lesion, rank: (p,) of the pairs of a lesion and a detection that hits it.
        num_lesions: all lesions.
    """
    never = np.iinfo(np.int64).max
    first = np.full(num_lesions, never)
    np.minimum.at(first, lesion, rank)
    return np.where(first == never, -1, first)


def by_score(scores: np.ndarray) -> np.ndarray:
    """(n,) detections in descending score, of equal ones the last first.

    The released scripts reverse NumPy's argsort, which leaves the order of equal scores to the processor.
    """
    return np.argsort(scores, kind="stable")[::-1]


def ranks_of_hits(order: np.ndarray, detection: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the detections that hit a lesion and of those that do not.

    Args:
        order: (n,) from :func:`by_score`.
        detection: (p,) detection of each hit.

    Returns:
        (p,) rank of each hit's detection, and the ascending ranks of the detections without a hit.
    """
    is_hit = np.zeros(len(order), dtype=bool)
    is_hit[detection] = True
    is_hit = is_hit[order]
    place = np.flatnonzero(is_hit)
    rank = np.zeros(len(order), dtype=np.int64)
    rank[order[place]] = place
    return rank[detection], np.flatnonzero(~is_hit)
