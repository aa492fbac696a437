"""One round: from scored 3D proposals to lesions and hard negatives (Lesion-Harvester, Section III)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode

from ..mining.ledger import LedgerRow
from ..structures import VolumeDetections
from .pool import Harvested, classifier_scores, merge, take
from .selection import NONE, hardest, marks_hit, on_lesions, smallest_threshold

# Gives the scored 3D proposals of a record's sub-volume: ``scores`` are s_g, ``fpr_scores`` s_c.
Scored = Callable[[dict], VolumeDetections]


@dataclass(frozen=True)
class Rules:
    """What decides between lesions and hard negatives; see the keys of HARVEST."""

    hit_iou: float = 0.5
    same_iou: float = 0.5
    precision: float = 0.95
    negative_score: float = 0.5
    negative_lesion_score: float = 1.0
    negatives_per_volume: int = 5
    verified_negatives_per_volume: int = -1
    negative_iou: float = 0.1

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Rules:
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


@dataclass(frozen=True)
class Harvest:
    """What there is after a round.

    Attributes:
        threshold: of s above which proposals were harvested; infinity where none was.
        precision: of the proposals of V_M above it, NaN without any.
        lesions: P_H^R, P_M^R and the union of P_H,i^+ of all rounds so far.
        negatives: P_H^- and P_M^- of this round.
        new: lesions of this round's P_H^+ that no round before had.
    """

    threshold: float
    precision: float
    lesions: list[Harvested]
    negatives: list[Harvested]
    new: int

    def rows(self, records: Sequence[dict], negative_slices: bool = True) -> list[LedgerRow]:
        """The ledger. A slice joins training where it is the best one of a lesion or a hard negative.

        On the slices of training, the marked ones and those that join, stand the boxes of all lesions and hard
        negatives that are known there, so that none counts as ordinary background. A box that is given anyway is
        left out.

        Args:
            records: of V_M and V_H.
            negative_slices: whether the slices of hard negatives join; else these stand where lesions do, alone.
        """
        given = {(x["id"], int(box[0])) for record in records for x in record["lesions"] for box in x["boxes"]}
        slices = {r["volume"]: {int(b[0]) for x in r["lesions"] for b in x["boxes"]} for r in records}
        for x in (*self.lesions, *(self.negatives if negative_slices else ())):
            slices.setdefault(x.volume, set()).add(int(x.best_slice[0]))
        rows = [row for x in (*self.lesions, *self.negatives) for row in x.rows(slices.get(x.volume, ()))]
        return [row for row in rows if (row.lesion, row.slice) not in given]


def known_proposals(
    records: Iterable[dict], proposals: Scored, rules: Rules
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(n, 6) boxes of the 3D proposals of each sub-volume that hit a mark, and of those on no known lesion.

    Of V_M, these are P_M^R and P_M^-; of V_H, the first are P_H^R and nothing is known of the others.
    """
    hitting, others = {}, {}
    for record in records:
        found = proposals(record)
        hits, ids = marks_hit(found, record, rules.hit_iou)
        marked = _marked(found, record, hits, ids, 0)
        hitting[record["volume"]] = found.boxes[hits != NONE]
        others[record["volume"]] = found.boxes[(hits == NONE) & ~_beside(found, record, marked, rules)]
    return hitting, others


def harvest_round(
    verified: Iterable[dict],
    partial: Iterable[dict],
    scored: Scored,
    before: list[Harvested],
    number: int,
    rules: Rules,
    rejected: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> Harvest:
    """Harvest V_H with what the proposals on V_M teach.

    Args:
        verified: the records of V_M. partial: those of V_H.
        scored: gives the proposals of each.
        before: lesions of the rounds before.
        number: of the round, from 1.
        rejected: by sub-volume, (k, 5) slice boxes z, x1, y1, x2, y2 of each lesion that a reader has rejected.
    """
    rejected = rejected or {}
    recovered, negatives, scores, is_lesion = [], [], [np.zeros(0)], [np.zeros(0, bool)]
    for record in verified:
        found = scored(record)
        hits, ids = marks_hit(found, record, rules.hit_iou)
        scores.append(lesion_scores(found))
        is_lesion.append(hits != NONE)
        marked = _marked(found, record, hits, ids, number)
        recovered += marked
        rest = (hits == NONE) & ~_beside(found, record, marked, rules)
        rows, limit = np.flatnonzero(rest), rules.verified_negatives_per_volume
        if limit >= 0:
            rows = hardest(found.scores, rest, rules.negative_score, limit)
        negatives += take(found, rows, record["volume"], number, status="hard_negative")
    scores, is_lesion = np.concatenate(scores), np.concatenate(is_lesion)
    threshold = smallest_threshold(scores, is_lesion, rules.precision)
    lesions_of = {name: [x for x in before if x.volume == name] for name in {x.volume for x in before}}
    kept, new = [], 0
    for record in partial:
        found, name = scored(record), record["volume"]
        earlier = lesions_of.pop(name, [])
        lesions, hard, count = _harvest_volume(
            found, record, earlier, threshold, number, rules, rejected.get(name, ())
        )
        kept, negatives, new = kept + lesions, negatives + hard, new + count
    left = [x for name in sorted(lesions_of) for x in lesions_of[name]]  # of V_M
    above = is_lesion[scores >= threshold]
    return Harvest(
        threshold,
        float(above.mean()) if len(above) else float("nan"),
        [*kept, *merge([*left, *recovered], rules.same_iou)],
        negatives,
        new,
    )


def _harvest_volume(
    found: VolumeDetections,
    record: dict,
    earlier: list[Harvested],
    threshold: float,
    number: int,
    rules: Rules,
    rejected: Sequence[np.ndarray],
) -> tuple[list[Harvested], list[Harvested], int]:
    """The lesions of one sub-volume of V_H, its hard negatives, and how many of the lesions are new."""
    name = record["volume"]
    hits, ids = marks_hit(found, record, rules.hit_iou)
    recovered = _marked(found, record, hits, ids, number)
    scores = lesion_scores(found)
    chosen = np.flatnonzero((hits == NONE) & (scores >= threshold))
    lesions = merge([*earlier, *recovered, *take(found, chosen, name, number)], rules.same_iou, rejected)
    eligible = (hits == NONE) & ~_beside(found, record, [*earlier, *lesions], rules)
    eligible &= (scores < threshold) & (scores <= rules.negative_lesion_score)
    rows = hardest(found.scores, eligible, rules.negative_score, rules.negatives_per_volume)
    hard = take(found, rows, name, number, status="hard_negative")
    old = [x.slice_boxes for x in earlier]
    harvested = [x.number for x in lesions if x.round == number and not x.annotation]
    return lesions, hard, int((~on_lesions(found, old, rules.same_iou))[harvested].sum())


def _beside(found: VolumeDetections, record: dict, lesions: list[Harvested], rules: Rules) -> np.ndarray:
    """(n,) bool: what overlaps a mark or one of the lesions too much to be a hard negative."""
    marks = [np.asarray(x["boxes"], dtype=float) for x in record["lesions"] if x["boxes"]]
    return on_lesions(found, [*marks, *(x.slice_boxes for x in lesions)], rules.negative_iou)


def lesion_scores(found: VolumeDetections) -> np.ndarray:
    """(n,) s = s_g * s_c (Eq. 7)."""
    return found.scores * classifier_scores(found)


def _marked(
    found: VolumeDetections, record: dict, hits: np.ndarray, ids: list[str], number: int
) -> list[Harvested]:
    """P^R of one sub-volume: the proposals that hit a mark."""
    rows = np.flatnonzero(hits != NONE)
    return take(found, rows, record["volume"], number, [ids[hits[row]] for row in rows])
