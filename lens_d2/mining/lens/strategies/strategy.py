"""Interface of mining strategies: a patient goes in, findings come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from fvcore.common.registry import Registry

from ....structures.detections import FUSED, VolumeDetections
from ....structures.known_boxes import KnownBoxes, best_overlap
from ....structures.records import given_lesions
from ....structures.status import BoxStatus

STRATEGIES = Registry("MINING_STRATEGY")
STRATEGIES.__doc__ = "Classes of strategies, by the names that MINING.STRATEGIES has; built with the config."


@dataclass(frozen=True)
class Finding:
    """One 3D lesion that a strategy has mined, or more slices of a known one.

    Attributes:
        volume: name of the sub-volume.
        lesion: id of the 3D lesion; that of the annotation if the finding continues it.
        slice_boxes: (k, 6) z, x1, y1, x2, y2, score, in the volume frame.
        status: of the ledger, see :data:`lens_d2.data.ledger.table.LEDGER_STATUSES`.
        annotation: id of the annotation that it was found by.
        distance: of the match, between embeddings (IntraPatient) or places (SamePlace), or NaN.
        precision: estimated share of lesions among findings like this one, or NaN.
        disagreement: between the experts, in [0, 1], see :meth:`PatientVolume.opinions`; NaN if unknown.
        expert: the one that agrees best, from there; empty if unknown.
    """

    volume: str
    lesion: str
    slice_boxes: np.ndarray
    status: str = "annotation"
    annotation: str | None = None
    distance: float = np.nan
    precision: float = np.nan
    disagreement: float = np.nan
    expert: str = ""


# Reads the proposals of a record: {"fused" or an expert: detections}.
ReadProposals = Callable[[dict], dict[str, VolumeDetections]]


@dataclass(frozen=True)
class Opinions:
    """Scores of the experts for n tracklets.

    Attributes:
        own: (n,) of the expert of the mined dataset.
        best_other: (n,) the highest of the others; NaN without others.
        number: (n,) index in ``others`` of the expert that gives ``best_other``.
        others: their names.
    """

    own: np.ndarray
    best_other: np.ndarray
    number: np.ndarray
    others: tuple[str, ...] = ("",)

    def expert(self, tracklet: int) -> str:
        """Name of the other expert that agrees most with a tracklet; "" without others."""
        return self.others[self.number[tracklet]]

    def of(self, tracklet: int) -> dict:
        """Fields ``expert`` and ``disagreement`` of a tracklet's finding."""
        apart = float(abs(self.own[tracklet] - self.best_other[tracklet]))
        return {"expert": self.expert(tracklet), "disagreement": apart}


@dataclass
class PatientVolume:
    """One sub-volume of the patient that is being mined.

    Attributes:
        record: of the dataset, with the annotations that are given.
        detections: the proposals, "fused" and of every expert, with boxes on the slices where they were detected.
        known: boxes given and mined so far, by this strategy or the ones before it.
    """

    record: dict
    detections: dict[str, VolumeDetections]
    known: KnownBoxes

    @classmethod
    def start(cls, record: dict, detections: dict[str, VolumeDetections]) -> PatientVolume:
        """The sub-volume before anything is mined."""
        detected = {name: found.detected() for name, found in detections.items()}
        return cls(record, detected, KnownBoxes.of_record(record))

    @property
    def annotations(self) -> set[str]:
        """Ids of the given annotations.

        A lesion mined in an earlier round is not an annotation, and no ledger names it as one.
        """
        return {lesion["id"] for lesion in given_lesions(self.record)}

    @property
    def experts(self) -> list[str]:
        """Names of the experts, in the order of the columns of ``expert_scores``."""
        return [name for name in self.detections if name != FUSED]

    def overlap_with_known(self, found: VolumeDetections, *status: BoxStatus) -> np.ndarray:
        """(n,) highest key-slice IoU of each tracklet with a known box of one of these statuses; 0 without one."""
        return best_overlap(found, self.known.of_status(*status))

    def opinions(self, group: str) -> Opinions:
        """The experts' scores for the tracklets of one group; without other experts, only the group's own."""
        found, experts = self.detections[group], self.experts
        columns = [i for i, name in enumerate(experts) if name != self.record["expert"]]
        if found.expert_scores is None or not columns or len(columns) == len(experts):
            return Opinions(found.scores, np.full(len(found), np.nan), np.zeros(len(found), dtype=int))
        others = found.expert_scores[:, columns]
        own = found.expert_scores[:, experts.index(self.record["expert"])]
        return Opinions(own, others.max(axis=1), others.argmax(axis=1), tuple(experts[i] for i in columns))


# All sub-volumes of one patient that the dataset has.
Patient = list[PatientVolume]


def group_by_patient(records: Sequence[dict]) -> list[list[dict]]:
    """The records of each patient, ordered by patient and sub-volume."""
    patients: dict[tuple[str, str], list[dict]] = {}
    for record in sorted(records, key=lambda record: record["volume"]):
        patients.setdefault((record["expert"], record["patient"]), []).append(record)
    return [patients[name] for name in sorted(patients)]


class Strategy:
    """Finds missing annotations, one patient at a time.

    A subclass is built with the config alone, by ``from_config`` of Detectron2's ``@configurable``.
    :func:`lens_d2.mining.lens.mine.mine_patient` drops the boxes that lie on known ones, so a strategy need not
    check for that.
    """

    def __call__(self, patient: Patient) -> list[Finding]:
        """Mine one patient.

        Returns:
            the findings, the most reliable first.
        """
        raise NotImplementedError

    def learn(self, records: Sequence[dict], proposals: ReadProposals) -> dict:
        """Learn from all sub-volumes before any patient is mined; by default nothing.

        All ranks are called, and may share the work (:func:`lens_d2.io.artifacts.share_out`).

        Args:
            records: of all sub-volumes, with given annotations and a radiologist's verdicts.
            proposals: gives the detections in a record's sub-volume.

        Returns:
            what was learnt, as JSON knows it; that of the first rank is logged, kept beside the ledger, and given
            to :meth:`use`.
        """
        return {}

    def use(self, learnt: dict) -> None:
        """Take what :meth:`learn` has returned: on every rank, and in every run that resumes this one."""


class VolumeStrategy(Strategy):
    """A strategy that looks at each sub-volume by itself."""

    def __call__(self, patient: Patient) -> list[Finding]:
        """The findings of all sub-volumes, by their highest score."""
        findings = [finding for volume in patient for finding in self.of_volume(volume)]
        return sorted(findings, key=lambda finding: -finding.slice_boxes[:, 5].max())

    def of_volume(self, volume: PatientVolume) -> list[Finding]:
        """Mine one sub-volume."""
        raise NotImplementedError


def build_strategies(cfg: CfgNode) -> dict[str, Strategy]:
    """Build the strategies that ``MINING.STRATEGIES`` names, in order, by their names.

    Raises:
        KeyError: a name is not registered.
    """
    return {name: STRATEGIES.get(name)(cfg) for name in cfg.MINING.STRATEGIES}
