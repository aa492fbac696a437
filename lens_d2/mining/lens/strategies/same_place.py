"""Matching of lesions between a patient's scans by their place in the body. In neither paper.

LENS matches by appearance alone (Section V-B, :mod:`.intra_patient`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from detectron2.config import configurable
from detectron2.data import MetadataCatalog
from scipy.spatial.distance import cdist

from ....data.body_places import BodyPlaces
from ....data.cache import build_cache
from ....data.same_lesions import read_places
from ....io.artifacts import share_out
from ....io.errors import DataError
from ....structures.detections import best_slice_boxes
from ....structures.status import BoxStatus
from ...calibration import Calibration, StratifiedPrecision, Stratum, Verified
from ...proposals import mined_datasets
from .candidates import calibration_of, find_candidates, lesions_first, on_best_slice
from .strategy import STRATEGIES, Finding, Patient, PatientVolume, ReadProposals, Strategy, group_by_patient

logger = logging.getLogger(__name__)


class Match(NamedTuple):
    """A tracklet where a lesion of another series is to be expected.

    Attributes:
        tracklet: its number.
        rank: log odds of the experts, less half the squared distance.
        stratum: size class.
        source: id of the lesion.
        distance: between their places, in units of the spread.
    """

    tracklet: int
    rank: float
    stratum: Stratum
    source: str
    distance: float


@STRATEGIES.register()
class SamePlace(Strategy):
    """Finds a known lesion again in the patient's other studies and series, by its place in the body.

    The other scan shows that a lesion is there, which is more than the detector knows: so tracklets with low
    scores count, too, and small lesions are found as well as large ones. Among the tracklets near the place, the
    one with the best sum of score and nearness is taken, unless a known lesion lies there; its estimated
    precision, by size, comes from the completely annotated sub-volumes. Known lesions are the marks and the
    findings of earlier strategies.
    """

    @configurable
    def __init__(
        self,
        *,
        places: Mapping[str, BodyPlaces],
        calibration: Calibration,
        precision: float = 0.9,
        distance: float = 4.0,
        score_thresh: float = 0.05,
    ):
        """
        Args:
            places: of the boxes in an expert's sub-volumes, by expert.
            calibration: the completely annotated sub-volumes, and size classes.
            precision: of the matches, on the completely annotated sub-volumes.
            distance: in units of the spread, beyond which places differ.
            score_thresh: tracklets with a lower score of the dataset's own expert are not looked at.
        """
        self.places, self.calibration, self.precision = places, calibration, precision
        self.distance, self.score_thresh = distance, score_thresh
        self.estimate = StratifiedPrecision({}, {})

    @classmethod
    def from_config(cls, cfg):
        """Arguments of the constructor, from a config.

        Raises:
            DataError: ``MINING.CALIBRATION.DATASET`` is empty; or a mined dataset has no table of marks' places.
        """
        keys, cache, places = cfg.MINING.SAME_PLACE, build_cache(cfg), {}
        for name in mined_datasets(cfg):
            metadata = MetadataCatalog.get(name)
            if not metadata.get("mark_table"):
                raise DataError(
                    "MINING.STRATEGIES", f"SamePlace needs the places of marks, which {name} does not have"
                )
            places[metadata.expert] = BodyPlaces(cache, read_places(metadata.mark_table))
        return {
            "places": places,
            "calibration": calibration_of(cfg, cls.__name__),
            "precision": keys.PRECISION,
            "distance": keys.DISTANCE,
            "score_thresh": keys.SCORE_THRESH,
        }

    def __call__(self, patient: Patient) -> list[Finding]:
        """Mine one patient; see :class:`Strategy`."""
        given = {annotation for volume in patient for annotation in volume.annotations}
        matched = self._matches(patient)
        return lesions_first(found for own in matched for found in self._findings(*own, given))

    def _findings(self, volume: PatientVolume, matches: Sequence[Match], given: Collection[str]) -> list[Finding]:
        name, group = volume.record["volume"], volume.record["expert"]
        ranks, strata = np.array([match.rank for match in matches]), [match.stratum for match in matches]
        precision, chosen = self.estimate.precision(ranks, strata), self.estimate.passes(ranks, strata)
        opinions, findings = volume.opinions(group), []
        for i, match in enumerate(matches):
            findings += on_best_slice(
                name,
                f"{name}/place-{match.tracklet}",
                volume.detections[group].boxes_of(match.tracklet),
                bool(chosen[i]),
                annotation=match.source if match.source in given else None,
                distance=match.distance,
                precision=float(precision[i]),
                **opinions.of(match.tracklet),
            )
        return findings

    def _matches(
        self, patient: Patient, among: Container[str] | None = None
    ) -> list[tuple[PatientVolume, list[Match]]]:
        """Each sub-volume with the tracklets at which lesions of other series are to be expected.

        Args:
            patient: whose lesions are known.
            among: names of the sub-volumes that are looked at; None: all.
        """
        if len({volume.record["series"] for volume in patient}) < 2:
            return []
        known = [self._known(volume) for volume in patient]
        found = []
        for volume, (_, here) in zip(patient, known, strict=True):
            if among is not None and volume.record["volume"] not in among:
                continue
            expected = [
                (lesions, places)
                for other, (lesions, places) in zip(patient, known, strict=True)
                if other.record["series"] != volume.record["series"]
            ]
            sources = [lesion for lesions, _ in expected for lesion in lesions]
            places = np.concatenate([np.zeros((0, 3)), *(own for _, own in expected)])
            found.append((volume, self._expect(volume, sources, places, here)))
        return found

    def _known(self, volume: PatientVolume) -> tuple[list[str], np.ndarray]:
        """Known lesions of a sub-volume and their (n, 3) places, by the largest box of each."""
        lesions = volume.known.of_status(BoxStatus.LESION)
        areas = (lesions.boxes[:, 2:] - lesions.boxes[:, :2]).prod(axis=1)
        largest: dict[str, int] = {}
        for row in np.argsort(areas, kind="stable").tolist():
            largest[lesions.lesions[row]] = row
        rows = list(largest.values())
        boxes = np.column_stack([lesions.slices[rows], lesions.boxes[rows]])
        return list(largest), self.places[volume.record["expert"]](volume.record, boxes)

    def _expect(
        self, volume: PatientVolume, sources: Sequence[str], places: np.ndarray, here: np.ndarray
    ) -> list[Match]:
        """Match lesions of other series with tracklets.

        Lesions at the place of one tracklet are one lesion, and match that tracklet alone.

        Args:
            volume: of the tracklets.
            sources: n, the lesions.
            places: (n, 3) of them.
            here: (k, 3) of the lesions that are known in the sub-volume.
        """
        record, expert = volume.record, volume.record["expert"]
        spread = self.places[expert].spread
        missing = np.flatnonzero(~(self._apart(places, here, spread) < self.distance).any(axis=1))
        if not len(missing):
            return []
        candidates = find_candidates(volume, self.calibration, self.score_thresh)
        boxes = best_slice_boxes(volume.detections[expert])[candidates.tracklets]
        apart = self._apart(places[missing], self.places[expert](record, boxes), spread)
        ranks = candidates.ranks - apart**2 / 2
        ranks[apart >= self.distance] = -np.inf
        matches = []
        while ranks.max(initial=-np.inf) > -np.inf:
            row, column = np.unravel_index(ranks.argmax(), ranks.shape)
            matches.append(
                Match(
                    int(candidates.tracklets[column]),
                    float(ranks[row, column]),
                    candidates.strata[column][:1],
                    sources[missing[row]],
                    float(apart[row, column]),
                )
            )
            ranks[:, column] = -np.inf
            ranks[apart[:, column] < self.distance] = -np.inf  # they are the same lesion, known in several series
        return matches

    @staticmethod
    def _apart(places: np.ndarray, others: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """(n, m) distances of (n, 3) and (m, 3) places in units of the spread; infinite where one is not known."""
        return np.nan_to_num(cdist(places / spread, others / spread), nan=np.inf)

    def learn(self, records: Sequence[dict], proposals: ReadProposals) -> dict:
        """Estimate the spread of places, and from the completely annotated sub-volumes the precision by size."""
        for expert, places in self.places.items():
            places.fit([record for record in records if record["expert"] == expert])
        verified = self.calibration.verified(records)
        patients = [own for own in group_by_patient(records) if any(r["volume"] in verified for r in own)]
        judge = partial(self._judge, proposals=proposals, verified=verified)
        judged = [each for own in share_out(patients, partial(map, judge), "matches at a place") for each in own]
        hits = np.array([is_lesion for *_, is_lesion in judged], dtype=bool)
        estimate = StratifiedPrecision({}, {})
        if judged:
            ranks, strata = np.array([rank for rank, *_ in judged]), [stratum for _, stratum, _ in judged]
            enough = self.calibration.min_lesions
            estimate = StratifiedPrecision.fit(ranks, hits, strata, self.precision, enough)
        logger.info("places: %d of %d matches in %s are lesions", hits.sum(), len(hits), self.calibration.dataset)
        return {
            "places": {
                expert: {"height_of_mm": own.height_of_mm, "spread": own.spread.tolist()}
                for expert, own in self.places.items()
            },
            "estimate": estimate.to_dict(),
        }

    def _judge(
        self, records: list[dict], proposals: ReadProposals, verified: Verified
    ) -> list[tuple[float, Stratum, bool]]:
        """Rank and stratum of a patient's matches where all lesions are known, and whether each is a lesion."""
        patient, judged = [PatientVolume.start(record, proposals(record)) for record in records], []
        for volume, matches in self._matches(patient, verified.unmarked):
            name, found = volume.record["volume"], volume.detections[volume.record["expert"]]
            for match in matches:
                is_lesion = bool(verified.hit(name, found.boxes_of(match.tracklet)))
                judged.append((match.rank, match.stratum, is_lesion))
        return judged

    def use(self, learnt: dict) -> None:
        """Take the spread and the estimate."""
        self.estimate = StratifiedPrecision.from_dict(learnt["estimate"])
        for expert, own in learnt["places"].items():
            self.places[expert].height_of_mm = own["height_of_mm"]
            self.places[expert].spread = np.array(own["spread"])
