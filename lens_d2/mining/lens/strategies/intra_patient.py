"""Intra-patient lesion matching (LENS, Section V-B)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from scipy.spatial.distance import cdist

from ....data.same_lesions import marks_of_dataset
from ....io.errors import DataError
from ....modeling.embedding import build_embed
from ....modeling.embedding.calibration import calibrate
from ....structures.boxes import key_slice_box
from ....structures.detections import FUSED, best_slice_boxes
from ....structures.records import given_lesions
from ....structures.status import BoxStatus
from ...proposals import mined_datasets
from .strategy import STRATEGIES, Finding, Patient, PatientVolume, ReadProposals, Strategy

# (record, slice, (4,) box in the volume frame) of n 2D boxes -> (n, d) float32, L2-normalised.
Embed = Callable[[list[tuple[dict, int, np.ndarray]]], np.ndarray]


@STRATEGIES.register()
class IntraPatient(Strategy):
    """Recognises an annotated lesion in the patient's other studies and series by its embedding.

    Every annotation is compared with every tracklet of the patient's other series; if their embeddings are
    nearer than delta, they match. If matching tracklets overlap, the nearest is taken. A match is a missing
    annotation if it overlaps no known lesion and is no known hard negative. A tracklet's embedding is that of its
    box with the highest score. With ``nearest_only`` a lesion occurs only once in a sub-volume: an annotation
    matches only the nearest tracklet there.
    """

    @configurable
    def __init__(
        self,
        *,
        embed: Embed,
        group: str = FUSED,
        distance: float = 0.15,
        score_thresh: float = 0.0,
        nearest_only: bool = False,
        calibrate: Callable[[Embed, Sequence[dict]], dict] | None = None,
        iou: float = 0.5,
    ):
        """
        Args:
            embed: gives embeddings of boxes.
            group: of the proposals, "fused" or an expert.
            distance: delta.
            score_thresh: tracklets with a lower score are not compared.
            nearest_only: an annotation matches only the nearest tracklet of a sub-volume, not all near ones.
            calibrate: gives {"distance": delta, ...} from ``embed`` and annotated records; None: ``distance`` is
                used.
            iou: theta; a tracklet with a larger key-slice IoU with a known hard negative is not a match.
        """
        self.embed, self.group = embed, group
        self.distance, self.score_thresh = distance, score_thresh
        self.nearest_only = nearest_only
        self.calibrate, self.iou = calibrate, iou

    @classmethod
    def from_config(cls, cfg):
        """Arguments of the constructor, from a config."""
        keys = cfg.MINING.INTRA_PATIENT
        return {
            "embed": build_embed(cfg),
            "group": cfg.MINING.PROPOSALS,
            "distance": keys.DISTANCE,
            "score_thresh": keys.SCORE_THRESH,
            "nearest_only": keys.NEAREST_ONLY,
            "calibrate": CALIBRATIONS[keys.THRESHOLD](cfg),
            "iou": cfg.MINING.IOU,
        }

    def __call__(self, patient: Patient) -> list[Finding]:
        """Mine one patient; see :class:`Strategy`."""
        if len({volume.record["series"] for volume in patient}) < 2:
            return []
        annotations = [(volume, lesion) for volume in patient for lesion in _annotations(volume.record)]
        tracklets = [(volume, *tracklet) for volume in patient for tracklet in self._sure(volume)]
        if not annotations or not tracklets:
            return []
        distances = self._distances(annotations, tracklets)
        own_series = np.array([volume.record["series"] for volume, _ in annotations])
        series = np.array([volume.record["series"] for volume, *_ in tracklets])
        distances[own_series[:, None] == series] = np.inf
        if self.nearest_only:
            distances = _only_nearest(distances, [volume.record["volume"] for volume, *_ in tracklets])
        nearest, best = distances.argmin(axis=0), distances.min(axis=0)
        lesions = {volume.record["volume"]: volume.known.of_status(BoxStatus.LESION) for volume in patient}
        rejects = {volume.record["volume"]: volume.known.of_status(BoxStatus.HARD_NEGATIVE) for volume in patient}
        opinions = {volume.record["volume"]: volume.opinions(self.group) for volume in patient}
        findings = []
        for i in np.argsort(best, kind="stable")[: int((best < self.distance).sum())]:
            volume, number, _ = tracklets[i]
            name, boxes = volume.record["volume"], volume.detections[self.group].boxes_of(number)
            if lesions[name].largest_overlap(boxes).any() or rejects[name].largest_overlap(boxes).max() > self.iou:
                continue
            finding = Finding(
                name,
                f"{name}/{self.group}-{number}",
                boxes,
                annotation=annotations[nearest[i]][1]["id"],
                distance=float(best[i]),
                **opinions[name].of(number),
            )
            lesions[name].add(finding.lesion, boxes, BoxStatus.LESION)
            findings.append(finding)
        return findings

    def learn(self, records: Sequence[dict], proposals: ReadProposals) -> dict:
        """Calibrate delta on the first rank, if that was asked for."""
        if self.calibrate is None or not comm.is_main_process():
            return {}
        return self.calibrate(self.embed, records)

    def use(self, learnt: dict) -> None:
        """Take the calibrated delta."""
        self.distance = learnt.get("distance", self.distance)

    def _sure(self, volume: PatientVolume) -> list[tuple[int, np.ndarray]]:
        """Number and best slice box of each tracklet with a sufficient score."""
        found = volume.detections[self.group]
        sure = found.scores >= self.score_thresh
        return list(zip(np.flatnonzero(sure), best_slice_boxes(found)[sure], strict=True))

    def _distances(self, annotations: list, tracklets: list) -> np.ndarray:
        """(annotations, tracklets) L2 distances of the embeddings."""
        boxes = [(volume.record, key_slice_box(lesion)) for volume, lesion in annotations]
        boxes += [(volume.record, box) for volume, _, box in tracklets]
        embedded = self.embed([(record, int(box[0]), box[1:5]) for record, box in boxes])
        return cdist(embedded[: len(annotations)], embedded[len(annotations) :])


def calibrate_on_marks(cfg: CfgNode, embed: Embed, records: Sequence[dict]) -> dict:
    """Calibrate delta on pairs of marks of known identity in the mined datasets."""
    marks = []
    for name in mined_datasets(cfg):
        volumes = {record["volume"] for record in DatasetCatalog.get(name)}
        marks += marks_of_dataset(name, [record for record in records if record["volume"] in volumes])
    precision, default = cfg.MODEL.EMBEDDING.CALIBRATION_PRECISION, cfg.MINING.INTRA_PATIENT.DISTANCE
    return calibrate(embed, marks, precision, default).to_dict()


def _calibration_on_marks(cfg: CfgNode) -> Callable:
    """:func:`calibrate_on_marks` of a config.

    Raises:
        DataError: none of the mined datasets has a table of marks.
    """
    names = mined_datasets(cfg)
    if not any(MetadataCatalog.get(name).get("mark_table") for name in names):
        fault = f"auto, but no mark_table tells which marks of {', '.join(names)} are of one lesion: set fixed"
        raise DataError("MINING.INTRA_PATIENT.THRESHOLD", fault)
    return partial(calibrate_on_marks, cfg)


# MINING.INTRA_PATIENT.THRESHOLD.
CALIBRATIONS: dict[str, Callable[[CfgNode], Callable | None]] = {
    "fixed": lambda cfg: None,
    "auto": _calibration_on_marks,
}


def _annotations(record: dict) -> list[dict]:
    """The given lesions of a record that have a box."""
    return [lesion for lesion in given_lesions(record) if lesion["boxes"]]


def _only_nearest(distances: np.ndarray, volumes: list[str]) -> np.ndarray:
    """(annotations, tracklets) distances, infinite but for an annotation's nearest tracklet of each sub-volume."""
    nearest = np.full_like(distances, np.inf)
    of_column = np.array(volumes)
    for volume in sorted(set(volumes)):
        columns = np.flatnonzero(of_column == volume)
        rows, chosen = np.arange(len(distances)), columns[distances[:, columns].argmin(axis=1)]
        nearest[rows, chosen] = distances[rows, chosen]
    return nearest
