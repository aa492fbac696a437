"""Precision of mined lesions by strata, estimated on completely annotated sub-volumes.

They are the V_M of Lesion-Harvester (Section III-C), which finds a single threshold on them. Here findings of each
size, and those that each expert agrees with, have a threshold of their own. These sub-volumes are mined like all
others, with their original marks only: their unmarked lesions are known, and stand for those missing everywhere.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from detectron2.config import CfgNode
from scipy.optimize import isotonic_regression

from ..data.cache import unresolved
from ..data.ledger.table import continues_given, slice_boxes_of
from ..data.ledger.verdicts import JUDGED
from ..data.loader import load_records
from ..io.artifacts import digest
from ..io.errors import DataError
from ..structures.boxes import size_class
from ..structures.known_boxes import KnownBoxes
from ..structures.records import given_lesions
from ..structures.status import STATUS_OF_RECORD, BoxStatus

logger = logging.getLogger(__name__)

# IoU on one of its slices above which a mark lies on a lesion of V_M: the marks' boxes come from two diameters.
MARKED_IOU = 0.3
# A stratum of findings: size class, and expert that agrees most; a shorter one is coarser, () has all findings.
Stratum = tuple[str, ...]


@dataclass(frozen=True)
class PrecisionCurve:
    """Share of lesions among findings, as a step function that never decreases with their score.

    Attributes:
        scores: (k,) ascending, where the steps begin; the first step also applies to lower scores.
        precision: (k,) of the steps.
    """

    scores: np.ndarray
    precision: np.ndarray

    @classmethod
    def fit(cls, scores: np.ndarray, is_lesion: np.ndarray) -> PrecisionCurve:
        """Fit the curve to (n,) scores and (n,) bool, n > 0, by isotonic regression.

        One lesion and one false finding are added to each step (Laplace), so that a few correct findings do not
        count as certain.
        """
        values, group = np.unique(scores, return_inverse=True)
        count = np.bincount(group).astype(float)
        lesions = np.bincount(group, weights=is_lesion)
        starts = isotonic_regression(lesions / count, weights=count).blocks[:-1]
        precision = with_prior(np.add.reduceat(lesions, starts), np.add.reduceat(count, starts))
        return cls(values[starts], np.maximum.accumulate(precision))

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """(n,) precision at (n,) scores."""
        return self.precision[np.maximum(np.searchsorted(self.scores, scores, side="right") - 1, 0)]


def with_prior(lesions: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Share of lesions among findings with one lesion and one false finding added, the mean under a flat prior."""
    return (lesions + 1) / (count + 2)


def least_score(scores: np.ndarray, is_lesion: np.ndarray, precision: float) -> float:
    """Lowest score from which on the findings have at least a precision, by :func:`with_prior`.

    Args:
        scores: (n,) of findings.
        is_lesion: (n,) bool.
        precision: in [0, 1].

    Returns:
        one of the scores; infinity if none will do.
    """
    return lowest_score(scores, is_lesion, lambda lesions, taken: with_prior(lesions, taken) >= precision)


def lowest_score(
    scores: np.ndarray, is_lesion: np.ndarray, enough: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> float:
    """Lowest score from which on there are enough lesions among the findings; equal scores are taken together.

    Args:
        scores: (n,) of findings.
        is_lesion: (n,) bool.
        enough: gives (n,) bool for (n,) numbers of lesions and (n,) numbers of findings taken.

    Returns:
        one of the scores; infinity if none will do.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    passes = enough(np.cumsum(is_lesion[order]), np.arange(1, len(ranked) + 1))
    passes[:-1] &= ranked[:-1] > ranked[1:]
    return float(ranked[passes][-1]) if passes.any() else float("inf")


@dataclass(frozen=True)
class StratifiedPrecision:
    """Curves and thresholds of strata with enough lesions; a finding belongs to the finest that it is in.

    Attributes:
        curves: by stratum.
        thresholds: by stratum; infinity if no score has the precision.
    """

    curves: dict[Stratum, PrecisionCurve]
    thresholds: dict[Stratum, float]

    @classmethod
    def fit(
        cls,
        scores: np.ndarray,
        is_lesion: np.ndarray,
        strata: Sequence[Stratum],
        precision: float = 0.0,
        min_lesions: int = 10,
    ) -> StratifiedPrecision:
        """Fit curves to the findings of V_M.

        Args:
            scores: (n,) of the findings.
            is_lesion: (n,) bool.
            strata: n, the finest of each.
            precision: of the thresholds.
            min_lesions: lesions that a stratum needs for a curve of its own; all findings together need none.
        """
        curves, thresholds = {}, {}
        for stratum in sorted({each[:depth] for each in strata for depth in range(len(each) + 1)}):
            own = np.array([each[: len(stratum)] == stratum for each in strata])
            if stratum and is_lesion[own].sum() < min_lesions:
                continue
            curves[stratum] = PrecisionCurve.fit(scores[own], is_lesion[own])
            thresholds[stratum] = least_score(scores[own], is_lesion[own], precision)
        return cls(curves, thresholds)

    def finest(self, stratum: Stratum) -> Stratum | None:
        """The finest stratum around a given one that has a curve; None if nothing could be fitted."""
        around = (stratum[:depth] for depth in range(len(stratum), -1, -1))
        return next((each for each in around if each in self.curves), None)

    def precision(self, scores: np.ndarray, strata: Sequence[Stratum]) -> np.ndarray:
        """(n,) estimated precision of findings; NaN if nothing could be fitted."""
        values = np.full(len(scores), np.nan)
        for i, stratum in enumerate(strata):
            if (known := self.finest(stratum)) is not None:
                values[i] = self.curves[known](scores[i : i + 1])[0]
        return values

    def passes(self, scores: np.ndarray, strata: Sequence[Stratum]) -> np.ndarray:
        """(n,) bool, whether findings reach the threshold of their stratum."""
        known = [self.finest(stratum) for stratum in strata]
        thresholds = [np.inf if each is None else self.thresholds[each] for each in known]
        return scores >= np.array(thresholds, dtype=float)

    def to_dict(self) -> list[dict]:
        """The same as JSON knows it, a dict for each stratum."""
        return [
            {
                "stratum": list(stratum),
                "scores": curve.scores.tolist(),
                "precision": curve.precision.tolist(),
                "threshold": self.thresholds[stratum] if np.isfinite(self.thresholds[stratum]) else None,
            }
            for stratum, curve in self.curves.items()
        ]

    @classmethod
    def from_dict(cls, strata: Sequence[dict]) -> StratifiedPrecision:
        """Undo :meth:`to_dict`."""
        curves, thresholds = {}, {}
        for each in strata:
            stratum = tuple(each["stratum"])
            curves[stratum] = PrecisionCurve(np.array(each["scores"]), np.array(each["precision"]))
            thresholds[stratum] = np.inf if each["threshold"] is None else each["threshold"]
        return cls(curves, thresholds)


class Verified:
    """The lesions of V_M that have no mark in the mined dataset.

    Attributes:
        unmarked: by sub-volume of both, a list of (k, 5) slice boxes z, x1, y1, x2, y2, one for each lesion.
        spacing: by sub-volume, x and y mm of a pixel.
    """

    def __init__(self, verified: Iterable[dict], mined: Iterable[dict], iou: float = 0.5):
        """
        Args:
            verified: records of V_M.
            mined: records of the mined dataset, with the original marks of the same sub-volumes.
            iou: of a finding that is a lesion.
        """
        self.iou = iou
        complete = {record["volume"]: record for record in verified}
        self.unmarked: dict[str, list[np.ndarray]] = {}
        self.spacing: dict[str, tuple[float, float]] = {}
        self._known: dict[str, KnownBoxes] = {}
        for record in mined:
            name = record["volume"]
            if name in complete:
                marks = KnownBoxes.of_record({"lesions": given_lesions(record)})
                lesions = [
                    x for x in complete[name]["lesions"] if STATUS_OF_RECORD[x["status"]] == BoxStatus.LESION
                ]
                boxes = [np.array(x["boxes"], dtype=float) for x in lesions if x["boxes"]]
                self.unmarked[name] = [x for x in boxes if (marks.largest_overlap(x) <= MARKED_IOU).all()]
                self.spacing[name] = tuple(record["spacing"][:2])
                self._known[name] = known = KnownBoxes()
                for number, own in enumerate(self.unmarked[name]):
                    known.add(str(number), own, BoxStatus.LESION)

    def __contains__(self, volume: str) -> bool:
        return volume in self.unmarked

    def __len__(self) -> int:
        return len(self.unmarked)

    def hit(self, volume: str, slice_boxes: np.ndarray) -> list[int]:
        """Numbers of the unmarked lesions of a sub-volume that a finding is on: IoU on a slice of both (P3D)."""
        known = self._known[volume]
        _, columns, iou = known.pairs(slice_boxes)
        return sorted({int(known.lesions[column]) for column in columns[iou >= self.iou]})

    def sizes(self, edges: Sequence[float]) -> Counter[str]:
        """Number of unmarked lesions in each size class, by their largest box."""
        return Counter(
            size_class(boxes, self.spacing[name], edges)
            for name, lesions in self.unmarked.items()
            for boxes in lesions
        )


@dataclass(frozen=True)
class Calibration:
    """The completely annotated dataset of a config, and how findings are calibrated on it.

    Attributes:
        dataset: registered name of V_M.
        sizes: borders between size classes, mm.
        min_lesions: lesions of V_M that a stratum needs for an estimate of its own.
        iou: least IoU, on a slice of both, at which a finding counts as a lesion of V_M.
        least_precision: a finding with a lower estimated precision is an uncertain region.
    """

    dataset: str
    sizes: tuple[float, ...] = (16.0, 24.0, 32.0)
    min_lesions: int = 10
    iou: float = 0.5
    least_precision: float = 0.5

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Calibration | None:
        """Read ``MINING.CALIBRATION``; None if it names no dataset."""
        keys = cfg.MINING.CALIBRATION
        if not keys.DATASET:
            return None
        return cls(keys.DATASET, tuple(keys.SIZES), keys.MIN_LESIONS, cfg.MINING.IOU, keys.LEAST_PRECISION)

    def verified(self, mined: Sequence[dict]) -> Verified:
        """The lesions of V_M without a mark in the mined dataset.

        Raises:
            DataError: none of V_M's sub-volumes is mined.
        """
        verified = Verified(load_records((self.dataset,)), mined, self.iou)
        if not len(verified):
            fault = f"no sub-volume of {self.dataset} is mined; they have to be, with their original marks"
            raise DataError("MINING.CALIBRATION.DATASET", fault)
        return verified

    def fingerprint(self) -> str:
        """Digest of what is annotated in V_M."""
        return digest(map(unresolved, load_records((self.dataset,))))

    def stratum(self, slice_boxes: np.ndarray, spacing: Sequence[float]) -> Stratum:
        """Size class of a finding, by its largest box."""
        return (size_class(slice_boxes, spacing, self.sizes),)


class FindingPrecision:
    """Estimates, by size and score, the precision of new lesions whose strategy gives none."""

    def __init__(self, calibration: Calibration, verified: Verified, records: Sequence[dict], rows: pd.DataFrame):
        """
        Args:
            calibration: of the config.
            verified: the lesions of V_M without a mark.
            records: of the mined dataset.
            rows: of a ledger, at least those in the sub-volumes of V_M.
        """
        self.calibration = calibration
        self.spacing = {record["volume"]: record["spacing"] for record in records}
        fitted: dict[str, list[tuple]] = {}
        own = rows[rows["volume"].isin(verified.unmarked)]
        whole = dict(tuple(own[own["status"] == "annotation"].groupby("lesion")))  # by whichever strategies
        for strategy, lesion, group in self._findings(own):
            volume, boxes = group["volume"].iloc[0], slice_boxes_of(whole[lesion])
            finding = group["score"].max(), bool(verified.hit(volume, boxes)), self._stratum(group)
            fitted.setdefault(strategy, []).append(finding)
        self.strategies, self.unseen = {}, set[str]()
        for strategy, findings in fitted.items():
            scores, is_lesion, strata = zip(*findings, strict=True)
            estimate = StratifiedPrecision.fit(
                np.array(scores), np.array(is_lesion), strata, min_lesions=calibration.min_lesions
            )
            self.strategies[strategy] = estimate
            logger.info(
                "%s: %d of %d findings in %s are lesions",
                strategy,
                sum(is_lesion),
                len(scores),
                calibration.dataset,
            )

    def fill(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of whole lesions with ``precision`` filled in; uncertain where it is too low."""
        precision, status = rows["precision"].to_numpy(copy=True), rows["status"].to_numpy(dtype=object, copy=True)
        for strategy, _, group in self._findings(rows.reset_index(drop=True)):
            precision[group.index] = value = self._precision(strategy, group)
            if value < self.calibration.least_precision:
                status[group.index] = "uncertain"
        return rows.assign(precision=precision, status=status.astype(str))

    def _precision(self, strategy: str, group: pd.DataFrame) -> float:
        if strategy in self.strategies:
            score = np.array([group["score"].max()])
            return float(self.strategies[strategy].precision(score, [self._stratum(group)])[0])
        value = float(with_prior(0, 0))
        if strategy not in self.unseen:
            fault = "%s: no findings in %s by which to estimate the precision of the others; %g is taken"
            logger.warning(fault, strategy, self.calibration.dataset, value)
            self.unseen.add(strategy)
        return value

    @staticmethod
    def _findings(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """The strategy that found it, id and rows of each new lesion without a precision, whoever added slices."""
        new = (rows["status"] == "annotation") & rows["precision"].isna() & ~continues_given(rows)
        new &= ~rows["lesion"].str.contains(JUDGED, regex=False)  # more slices of a lesion that is sure
        for lesion, group in rows[new].groupby("lesion", sort=False):
            yield group["strategy"].iloc[0], str(lesion), group

    def _stratum(self, group: pd.DataFrame) -> Stratum:
        boxes = slice_boxes_of(group)
        return self.calibration.stratum(boxes, self.spacing[group["volume"].iloc[0]])
