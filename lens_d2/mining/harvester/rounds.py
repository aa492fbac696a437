"""One round: from scored 3D proposals to lesions and hard negatives (Lesion-Harvester, Section III)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode

from ...data.ledger.table import LedgerRow
from ...data.ledger.verdicts import VERDICTS
from ...io.artifacts import share_out
from ...structures.detections import VolumeDetections
from ...structures.known_boxes import KnownBoxes
from ...structures.status import BoxStatus
from ..calibration import PrecisionCurve
from .pool import HarvestedLesion, classifier_scores, merge, to_harvested
from .proposals import Proposals
from .selection import NONE, marks_hit, on_lesions, select_hard_negatives, smallest_threshold

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """Rules that decide between lesions and hard negatives; see the keys of HARVEST."""

    hit_iou: float = 0.5
    same_iou: float = 0.5
    precision: float = 0.95
    negative_score: float = 0.5
    negative_lesion_score: float = 1.0
    negatives_per_volume: int = 5
    verified_negatives_per_volume: int = -1
    negative_iou: float = 1.1

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Rules:
        """The rules of a config."""
        keys = cfg.HARVEST
        return cls(
            keys.HIT_IOU,
            keys.SAME_IOU,
            keys.PRECISION,
            keys.NEGATIVE_SCORE_THRESH,
            keys.NEGATIVE_LESION_SCORE_THRESH,
            keys.NEGATIVES_PER_VOLUME,
            keys.VERIFIED_NEGATIVES_PER_VOLUME,
            keys.NEGATIVE_IOU,
        )

    @property
    def decided_iou(self) -> float:
        """IoU with an already decided lesion above which a proposal cannot be a hard negative."""
        return min(self.negative_iou, self.same_iou)


class LabelSet(NamedTuple):
    """A set of labels that a round can give to training (Table II), selected by three properties; None: either.

    Attributes:
        verified: they lie in V_M.
        marked: they hit a given mark.
        negative: they are hard negatives.
    """

    verified: bool | None
    marked: bool | None
    negative: bool

    def has(self, verified: bool, marked: bool, negative: bool) -> bool:
        """Whether a label belongs to the set."""
        return negative == self.negative and self.verified in (None, verified) and self.marked in (None, marked)


LABEL_SETS = {
    "verified_recovered": LabelSet(verified=True, marked=True, negative=False),
    "verified_negatives": LabelSet(verified=True, marked=None, negative=True),
    "recovered": LabelSet(verified=False, marked=True, negative=False),
    "harvested": LabelSet(verified=None, marked=False, negative=False),
    "negatives": LabelSet(verified=False, marked=None, negative=True),
}


@dataclass(frozen=True)
class Labels:
    """The labels that a round leaves.

    Attributes:
        pool: P_H^R, P_M^R and the union of P_H,i^+ of all rounds so far; lesions that a radiologist has judged
            have the verdict as status.
        verified: names of the sub-volumes of V_M.
        verified_negatives: P_M^- of this round.
        negatives: P_H^- of this round.
    """

    pool: list[HarvestedLesion]
    verified: frozenset[str]
    verified_negatives: list[HarvestedLesion]
    negatives: list[HarvestedLesion]

    @property
    def lesions(self) -> list[HarvestedLesion]:
        """Those of the pool that are lesions in training."""
        return [x for x in self.pool if x.is_lesion]

    def of(self, sets: Collection[str]) -> list[HarvestedLesion]:
        """The labels that training gets: those of the named sets, and all judged ones."""
        unjudged = [x for x in self.pool if x.status == "annotation"]
        labels = [*unjudged, *self.verified_negatives, *self.negatives]
        chosen = [
            x
            for name in LABEL_SETS
            if name in sets
            for x in labels
            if LABEL_SETS[name].has(x.volume in self.verified, bool(x.annotation), x.status == "hard_negative")
        ]
        return [x for x in self.pool if x.status in VERDICTS] + chosen

    def rows(
        self, records: Sequence[dict], sets: Collection[str] = tuple(LABEL_SETS), negative_slices: bool = True
    ) -> list[LedgerRow]:
        """The rows of the ledger.

        The best slice of each lesion and hard negative joins training. Every training slice, whether marked or
        joined, gets the boxes of all lesions and hard negatives known there, so that none counts as ordinary
        background. Given boxes are left out.

        Args:
            records: of V_M and V_H.
            sets: see :meth:`of`.
            negative_slices: whether the best slices of hard negatives join; otherwise these stand only on slices
                of lesions.
        """
        given = {(x["id"], int(box[0])) for record in records for x in record["lesions"] for box in x["boxes"]}
        slices = {r["volume"]: {int(b[0]) for x in r["lesions"] for b in x["boxes"]} for r in records}
        taken = {lesion for lesion, _ in given}  # V_M may contain names given by an earlier harvest
        labels = [
            replace(x, name=f"{x.lesion}'") if x.number >= 0 and not x.annotation and x.lesion in taken else x
            for x in self.of(sets)
        ]
        for x in labels:
            if x.is_lesion or (x.status in ("hard_negative", "rejected") and negative_slices):
                slices.setdefault(x.volume, set()).add(int(x.best_slice[0]))
        rows = [row for x in labels for row in x.rows(slices.get(x.volume, ()))]
        return [row for row in rows if (row.lesion, row.slice) not in given]


@dataclass(frozen=True)
class Harvest(Labels):
    """The result of a round.

    Attributes:
        threshold: lowest s of the proposals that were harvested; infinity if none was.
        precision: of the proposals of V_M from it on, NaN without any.
        new: number of lesions of this round's P_H^+ that no earlier round had.
    """

    threshold: float
    precision: float
    new: int


def known_proposals(
    records: Sequence[dict], proposals: Proposals, rules: Rules, before: Sequence[HarvestedLesion] = ()
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Find the 3D proposals that are lesions, and those on no known lesion.

    On V_M, these are P_M^R and P_M^-; on V_H, the former are P_H^R, and the latter may be lesions or not. All
    ranks call this, and share the work.

    Args:
        records: of V_M or V_H.
        proposals: gives the 3D proposals of a record.
        rules: of the harvest.
        before: the pool of the rounds before.

    Returns:
        (n, 6) boxes of both kinds, by sub-volume.
    """
    earlier = _by_volume(before)

    def boxes_of(record: dict) -> tuple[np.ndarray, np.ndarray]:
        known = _Known.of(proposals(record), record, earlier[record["volume"]], rules, 0)
        return known.found.boxes[known.is_lesion], known.found.boxes[known.is_negative]

    boxes = share_out(records, lambda some: map(boxes_of, some), "known 3D proposals")
    names = [record["volume"] for record in records]
    lesions, others = ([own[kind] for own in boxes] for kind in (0, 1))
    return dict(zip(names, lesions, strict=True)), dict(zip(names, others, strict=True))


def harvest_round(
    verified: Iterable[dict],
    partial: Iterable[dict],
    scored: Proposals,
    before: Iterable[HarvestedLesion],
    number: int,
    rules: Rules,
) -> Harvest:
    """Harvest V_H by a threshold that is found on V_M.

    Args:
        verified: records of V_M.
        partial: records of V_H.
        scored: gives the scored 3D proposals of a record.
        before: the pool of the rounds before, with a radiologist's verdicts, see :func:`.pool.with_verdicts`.
        number: of the round, from 1.
        rules: of the harvest.
    """
    earlier, verified = _by_volume(before), list(verified)
    pool_of_verified, verified_negatives, scores, is_lesion = [], [], [np.zeros(0)], [np.zeros(0, bool)]
    for record in verified:
        known = _Known.of(scored(record), record, earlier[record["volume"]], rules, number)
        found = known.found
        scores.append(lesion_scores(found)[known.counts])
        is_lesion.append(known.is_lesion[known.counts])
        pool_of_verified += merge([*earlier[record["volume"]], *known.marked], rules.same_iou)
        rows, limit = np.flatnonzero(known.is_negative), rules.verified_negatives_per_volume
        if limit >= 0:
            rows = select_hard_negatives(found.scores, known.is_negative, rules.negative_score, limit)
        verified_negatives += to_harvested(found, rows, record["volume"], number, status="hard_negative")
    scores, is_lesion = np.concatenate(scores), np.concatenate(is_lesion)
    curve = PrecisionCurve.fit(scores, is_lesion) if len(scores) else None
    threshold = smallest_threshold(scores, is_lesion, rules.precision)
    if not np.isfinite(threshold):
        text = "round %d: no score has a precision above %g on V_M: V_H gets no lesions and no hard negatives"
        logger.warning(text, number, rules.precision)
    pool, negatives, new = [], [], 0
    for record in partial:
        kept, hard, count = _harvest_volume(
            scored(record), record, earlier[record["volume"]], threshold, number, rules
        )
        pool += [_with_precision(x, curve) if x.round == number else x for x in kept]
        negatives += hard
        new += count
    above = is_lesion[scores >= threshold]
    precision = float(above.mean()) if len(above) else float("nan")
    names = frozenset(record["volume"] for record in verified)
    return Harvest([*pool, *pool_of_verified], names, verified_negatives, negatives, threshold, precision, new)


def _with_precision(lesion: HarvestedLesion, curve: PrecisionCurve | None) -> HarvestedLesion:
    """Add the precision of V_M's proposals with this score to a harvested lesion, unless it hits a mark."""
    if curve is None or lesion.annotation:
        return lesion
    return replace(lesion, precision=float(curve(np.array([lesion.score]))[0]))


def _harvest_volume(
    found: VolumeDetections,
    record: dict,
    earlier: list[HarvestedLesion],
    threshold: float,
    number: int,
    rules: Rules,
) -> tuple[list[HarvestedLesion], list[HarvestedLesion], int]:
    """The pool of one sub-volume of V_H, its hard negatives, and the number of new lesions.

    Without a finite threshold the classifier tells no lesion from the rest, so nothing is a hard negative either.
    """
    name = record["volume"]
    known = _Known.of(found, record, earlier, rules, number)
    scores = lesion_scores(found)
    chosen = np.flatnonzero(~known.is_lesion & (scores >= threshold))
    pool = merge([*earlier, *known.marked, *to_harvested(found, chosen, name, number)], rules.same_iou)
    decided = on_lesions(found, _not_rejected(pool), rules.decided_iou)
    eligible = known.is_negative & ~decided & (scores < threshold) & (scores <= rules.negative_lesion_score)
    eligible &= np.isfinite(threshold)
    rows = select_hard_negatives(found.scores, eligible, rules.negative_score, rules.negatives_per_volume)
    hard = to_harvested(found, rows, name, number, status="hard_negative")
    old = [x.slice_boxes for x in earlier]
    harvested = [x.number for x in pool if x.round == number and x.number in chosen and not x.annotation]
    return pool, hard, int((~on_lesions(found, old, rules.same_iou))[harvested].sum())


@dataclass(frozen=True)
class _Known:
    """Knowledge about the proposals of one sub-volume.

    Attributes:
        found: the n proposals.
        marked: P^R, those that hit a mark.
        is_lesion: (n,) bool: these, and those that a radiologist has accepted.
        counts: (n,) bool: all but those that a radiologist was unsure about, now or in the given annotations.
        is_negative: (n,) bool: those on no known lesion, nor on a possible one.
    """

    found: VolumeDetections
    marked: list[HarvestedLesion]
    is_lesion: np.ndarray
    counts: np.ndarray
    is_negative: np.ndarray

    @classmethod
    def of(
        cls, found: VolumeDetections, record: dict, earlier: list[HarvestedLesion], rules: Rules, number: int
    ) -> _Known:
        hits, ids = marks_hit(found, record, rules.hit_iou)
        rows = np.flatnonzero(hits != NONE)
        marked = to_harvested(found, rows, record["volume"], number, [ids[hits[row]] for row in rows])
        accepted, unsure = (
            [x.slice_boxes for x in earlier if x.status == status] for status in ("accepted", "unsure")
        )
        is_lesion = (hits != NONE) | on_lesions(found, accepted, rules.hit_iou)
        given = KnownBoxes.of_record(record)
        marks, maybe = (
            np.column_stack([own.slices, own.boxes])
            for own in (given.of_status(BoxStatus.LESION), given.of_status(BoxStatus.UNCERTAIN))
        )
        doubtful = on_lesions(found, [maybe, *unsure], rules.decided_iou)
        beside = on_lesions(found, [marks, maybe, *_not_rejected([*earlier, *marked])], rules.negative_iou)
        return cls(found, marked, is_lesion, is_lesion | ~doubtful, ~(is_lesion | beside | doubtful))


def _not_rejected(lesions: Iterable[HarvestedLesion]) -> list[np.ndarray]:
    """Slice boxes of the lesions that no radiologist has rejected."""
    return [x.slice_boxes for x in lesions if x.status != "rejected"]


def _by_volume(lesions: Iterable[HarvestedLesion]) -> defaultdict[str, list[HarvestedLesion]]:
    volumes: defaultdict[str, list[HarvestedLesion]] = defaultdict(list)
    for lesion in lesions:
        volumes[lesion.volume].append(lesion)
    return volumes


def lesion_scores(found: VolumeDetections) -> np.ndarray:
    """(n,) s = s_g * s_c (Eq. 7)."""
    return found.scores * classifier_scores(found)
