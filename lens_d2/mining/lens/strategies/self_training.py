"""Self-training on the detector's own findings, held to a precision and chosen to resemble the missing lesions.

In neither paper.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from detectron2.config import configurable
from tabulate import tabulate

from ....io.artifacts import share_out
from ...calibration import Calibration, StratifiedPrecision, Stratum, Verified
from .candidates import Candidates, calibration_of, find_candidates, lesions_first, on_best_slice
from .strategy import STRATEGIES, Finding, Patient, PatientVolume, ReadProposals, Strategy

logger = logging.getLogger(__name__)


class Seen(NamedTuple):
    """The candidates of a sub-volume, and the unmarked lesions that each hits; None where not all are known."""

    candidates: Candidates
    hits: list[Collection[Hashable]] | None


@STRATEGIES.register()
class SelfTraining(Strategy):
    """Takes the likeliest tracklets that match no mark as lesions, each on its best slice.

    A detector first finds lesions that are marked anyway: large and conspicuous ones. Training gains more from
    fewer lesions if they resemble all missing ones. So tracklets are ranked and chosen within strata, formed by
    the size class and by the expert of another dataset that agrees most. In each stratum, those above a threshold
    are taken: the score from which on enough of them are lesions in the completely annotated sub-volumes. If they
    exceed the stratum's quota, a part is drawn at random. The quota is a share of the unmarked lesions that the
    whole dataset would have in the stratum if it were like its completely annotated part.

    Likely tracklets that are not chosen become uncertain regions, and so do the other slices of the chosen ones.
    """

    @configurable
    def __init__(
        self,
        *,
        calibration: Calibration,
        precision: float = 0.9,
        quota: float = 0.5,
        uncertain_precision: float = 0.3,
        score_thresh: float = 0.05,
        seed: int = 0,
    ):
        """
        Args:
            calibration: the completely annotated sub-volumes, and the strata.
            precision: of the chosen tracklets, on the completely annotated sub-volumes.
            quota: most that is chosen in a stratum, as a share of the lesions estimated to be missing there.
            uncertain_precision: estimated precision from which on a tracklet is at least an uncertain region.
            score_thresh: tracklets with a lower score of the dataset's own expert are not looked at.
            seed: of the draw.
        """
        self.calibration, self.precision, self.quota = calibration, precision, quota
        self.uncertain_precision, self.score_thresh = uncertain_precision, score_thresh
        self.seed = seed
        self.estimate = StratifiedPrecision({}, {})
        self.rates: dict[Stratum, float] = {}

    @classmethod
    def from_config(cls, cfg):
        """Arguments of the constructor, from a config.

        Raises:
            DataError: ``MINING.CALIBRATION.DATASET`` is empty.
        """
        keys = cfg.MINING.SELF_TRAINING
        return {
            "calibration": calibration_of(cfg, cls.__name__),
            "precision": keys.PRECISION,
            "quota": keys.QUOTA,
            "uncertain_precision": keys.UNCERTAIN_PRECISION,
            "score_thresh": keys.SCORE_THRESH,
            "seed": max(cfg.SEED, 0),
        }

    def __call__(self, patient: Patient) -> list[Finding]:
        """Mine one patient; see :class:`Strategy`."""
        return lesions_first(finding for volume in patient for finding in self._of_volume(volume))

    def _of_volume(self, volume: PatientVolume) -> list[Finding]:
        name, group = volume.record["volume"], volume.record["expert"]
        candidates = self.candidates(volume)
        precision = self.estimate.precision(candidates.ranks, candidates.strata)
        chosen = self.estimate.passes(candidates.ranks, candidates.strata)
        opinions, findings = volume.opinions(group), []
        for i, tracklet in enumerate(candidates.tracklets.tolist()):
            if not (chosen[i] or precision[i] >= self.uncertain_precision):
                continue
            lesion, boxes = f"{name}/self-{tracklet}", volume.detections[group].boxes_of(tracklet)
            taken = chosen[i] and self._draw(lesion) < self.rates.get(candidates.strata[i], 0.0)
            values = {"precision": float(precision[i]), **opinions.of(tracklet)}
            findings += on_best_slice(name, lesion, boxes, taken, **values)
        return findings

    def candidates(self, volume: PatientVolume) -> Candidates:
        """The tracklets that are looked at."""
        return find_candidates(volume, self.calibration, self.score_thresh)

    def learn(self, records: Sequence[dict], proposals: ReadProposals) -> dict:
        """Estimate the precision by strata, and the share of each stratum's tracklets that fills its quota."""
        verified = self.calibration.verified(records)
        look = partial(self._look_at, proposals=proposals, verified=verified)
        seen = share_out(records, partial(map, look), "candidates of self-training")
        known = {record["volume"]: own for record, own in zip(records, seen, strict=True) if own.hits is not None}
        estimate = self._fit(known.values())
        passing = Counter(
            stratum
            for candidates, _ in seen
            for stratum, passes in zip(
                candidates.strata, estimate.passes(candidates.ranks, candidates.strata), strict=True
            )
            if passes
        )
        experts = {expert for candidates, _ in seen for _, expert in candidates.strata}
        missing = missing_by_stratum(
            verified, self.calibration.sizes, strata_found(known), experts, len(records) / len(verified)
        )
        rates = {stratum: min(1.0, self.quota * missing[stratum] / count) for stratum, count in passing.items()}
        logger.info("self-training:\n%s", _format_quotas(missing, passing, rates))
        return {
            "estimate": estimate.to_dict(),
            "rates": [[*stratum, rate] for stratum, rate in sorted(rates.items())],
        }

    def _look_at(self, record: dict, proposals: ReadProposals, verified: Verified) -> Seen:
        """The candidates of a sub-volume, and what they hit if all of its lesions are known."""
        volume = PatientVolume.start(record, proposals(record))
        candidates, name = self.candidates(volume), record["volume"]
        if name not in verified:
            return Seen(candidates, None)
        found = volume.detections[record["expert"]]
        return Seen(candidates, [verified.hit(name, found.boxes_of(row)) for row in candidates.tracklets.tolist()])

    def _fit(self, known: Collection[Seen]) -> StratifiedPrecision:
        """The precision by strata, of the candidates where all lesions are known."""
        return StratifiedPrecision.fit(
            np.concatenate([np.zeros(0), *(own.candidates.ranks for own in known)]),
            np.array([bool(hit) for own in known for hit in own.hits or ()], dtype=bool),
            [stratum for own in known for stratum in own.candidates.strata],
            self.precision,
            self.calibration.min_lesions,
        )

    def use(self, learnt: dict) -> None:
        """Take the estimate and the quotas."""
        self.estimate = StratifiedPrecision.from_dict(learnt["estimate"])
        self.rates = {(size, expert): rate for size, expert, rate in learnt["rates"]}

    def _draw(self, lesion: str) -> float:
        """Number in [0, 1) that depends on the seed and the lesion's name alone, on any rank."""
        return int(hashlib.sha256(f"{self.seed}/{lesion}".encode()).hexdigest()[:8], 16) / 16**8


def strata_found(known: Mapping[str, Seen]) -> list[Stratum]:
    """For each lesion that is hit, the stratum of the likeliest tracklet on it; ``known`` is by sub-volume."""
    hit_by: dict[tuple[str, Hashable], Stratum] = {}
    for name, (candidates, hits) in known.items():
        for stratum, lesions in zip(candidates.strata, hits or (), strict=True):
            for lesion in lesions:
                hit_by.setdefault((name, lesion), stratum)
    return list(hit_by.values())


def _format_quotas(missing: Mapping[Stratum, float], passing: Mapping[Stratum, int], rates: Mapping) -> str:
    """A table of what is estimated to be missing in each stratum, and of what is chosen."""
    rows = [
        (*stratum, f"{missing[stratum]:.0f}", passing[stratum], f"{rates.get(stratum, 0) * passing[stratum]:.0f}")
        for stratum in sorted({*missing, *passing})
    ]
    header = ("size", "expert", "estimated to be missing", "above the threshold", "chosen")
    return tabulate(rows, header, tablefmt="pipe")


def missing_by_stratum(
    verified: Verified, sizes: Sequence[float], found: Sequence[Stratum], experts: Collection[str], volumes: float
) -> defaultdict[Stratum, float]:
    """Estimate how many lesions without a mark there are in each stratum of all mined sub-volumes.

    Sizes are distributed as in the completely annotated sub-volumes, and experts within each size class as among
    the lesions found there, plus one for each expert; a lesion without a tracklet has no expert.

    Args:
        verified: lesions without a mark in the completely annotated sub-volumes.
        sizes: borders between size classes, mm.
        found: strata of those lesions on which a tracklet lies.
        experts: names of the experts that may agree with a lesion.
        volumes: number of mined sub-volumes per completely annotated one.
    """
    of_stratum = Counter(found)
    missing: defaultdict[Stratum, float] = defaultdict(float)
    for size, count in verified.sizes(sizes).items():
        total = sum(of_stratum[size, expert] + 1 for expert in experts)
        for expert in experts:
            share = (of_stratum[size, expert] + 1) / total
            missing[size, expert] = count * share * volumes
    return missing
