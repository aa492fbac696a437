"""Orders in which a radiologist judges the proposals of a ledger: ``--queue`` of ``lens-d2 review``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from ...structures.boxes import size_class
from .verdicts import VERDICTS, Proposal

USED = ("annotation", "accepted")  # statuses of proposals that training takes as lesions
EVEN = 0.5  # probability of being a lesion where nothing is known


def by_score(proposals: Sequence[Proposal], records: Sequence[dict], sizes: Sequence[float]) -> list[Proposal]:
    """The highest scores first, those without a score last."""
    return sorted(proposals, key=lambda each: -np.nan_to_num(each.score, nan=-1.0))


def by_information(
    proposals: Sequence[Proposal], records: Sequence[dict], sizes: Sequence[float]
) -> list[Proposal]:
    """Order proposals by the change that their verdicts are expected to make, the largest first.

    A verdict changes something if it turns a region that training ignores into a lesion, or removes a mined lesion
    that is not one. The expected change is the probability of that, raised where two opinions disagree, times the
    need of the proposal's stratum (size class, expert that agrees): likely but unused lesions, as a share of these
    and the lesions that training has, marked or mined. Each proposal taken lowers the need of its stratum, so that
    the first hundred are of all kinds. Judged proposals, and further slices of marked lesions, come last.

    Args:
        proposals: of a ledger, all of them.
        records: of the dataset, with given annotations only.
        sizes: rising borders between size classes, mm.
    """
    spacing = {record["volume"]: record["spacing"] for record in records}
    marks = {x["id"]: (r["volume"], np.array(x["boxes"])) for r in records for x in r["lesions"] if x["boxes"]}
    expert_of_mark = {each.id: each.expert for each in proposals if each.id in marks}
    used: defaultdict[tuple, float] = defaultdict(float)
    likely: defaultdict[tuple, float] = defaultdict(float)
    waiting: defaultdict[tuple, list[tuple[float, float, Proposal]]] = defaultdict(list)

    def stratum(volume: str, slice_boxes: np.ndarray, expert: str) -> tuple:
        return size_class(slice_boxes, spacing[volume], sizes), expert

    for name, (volume, boxes) in marks.items():
        used[stratum(volume, boxes, expert_of_mark.get(name, ""))] += 1
    new = [each for each in proposals if each.id not in marks]
    for each in new:
        own, probability = stratum(each.volume, each.slice_boxes, each.expert), _probability(each)
        is_used, is_judged = each.status in USED, each.status in VERDICTS
        (used if is_used else likely)[own] += probability
        change = (1 - probability if is_used else probability) * (1 + np.nan_to_num(each.disagreement))
        waiting[own].append((0.0 if is_judged else change, 0.0 if is_used else probability, each))
    for own in waiting.values():
        own.sort(key=lambda entry: (entry[0], entry[2].id), reverse=True)
    queue: list[Proposal] = []
    while waiting:
        gains = {own: rest[0][0] * _share(likely[own], used[own]) for own, rest in waiting.items()}
        best = max(gains, key=lambda own: (gains[own], own))
        _, gained, proposal = waiting[best].pop(0)
        queue.append(proposal)
        likely[best], used[best] = likely[best] - gained, used[best] + gained
        if not waiting[best]:
            del waiting[best]
    return queue + by_score([each for each in proposals if each.id in marks], records, sizes)


QUEUES: dict[str, Callable[[Sequence[Proposal], Sequence[dict], Sequence[float]], list[Proposal]]] = {
    "score": by_score,
    "informative": by_information,
}


def _probability(proposal: Proposal) -> float:
    """Probability that a proposal is a lesion: by verdict, estimated precision, or score; else even odds."""
    if proposal.status in VERDICTS:
        return {"accepted": 1.0, "rejected": 0.0}.get(proposal.status, EVEN)
    return next((x for x in (proposal.precision, proposal.score) if not np.isnan(x)), EVEN)


def _share(part: float, rest: float) -> float:
    return max(part, 0.0) / max(part + rest, 1.0)
