"""Intra-patient lesion matching (LENS, Section V-B)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from scipy.spatial.distance import cdist

from ...data.datasets.catalog import root_of
from ...data.same_lesions import collect_marks, read_places
from ...modeling.embedding import build_embed
from ...modeling.embedding.calibration import calibrate
from ...modeling.targets import BoxStatus
from ..datasets import mined_datasets
from ..findings import Finding, Patient, PatientVolume, best_slice_boxes, tracklet_overlaps
from .strategy import STRATEGIES, Strategy

# (record, slice, (4,) box in the volume frame) of n 2D boxes -> (n, d) float32, L2-normalised.
Embed = Callable[[list[tuple[dict, int, np.ndarray]]], np.ndarray]


@STRATEGIES.register()
class IntraPatient(Strategy):
    """Recognises an annotated lesion in the patient's other studies and series by its embedding.

    Every annotation is compared with every tracklet of the patient's other series that is not known yet; where
    their embeddings are nearer than delta, the tracklet's boxes are missing annotations. A tracklet's embedding
    is that of its box with the highest score.
    """

    @configurable
    def __init__(
        self,
        *,
        embed: Embed,
        group: str = "fused",
        iou: float = 0.5,
        distance: float = 0.15,
        score_thresh: float = 0.0,
        nearest_only: bool = False,
        calibrate: Callable[[Embed, Sequence[dict]], dict] | None = None,
    ):
        """
        Args:
            embed: gives embeddings of boxes.
            group: of the proposals that are compared: "fused" or an expert.
            iou: theta: a tracklet with a larger key-slice IoU with an annotation, given or mined, is known.
            distance: delta.
            score_thresh: tracklets with a lower score are not compared.
            nearest_only: of the tracklets of one sub-volume, an annotation matches only the nearest.
            calibrate: gives {"distance": delta, ...} from ``embed`` and annotated records; None: it is as given.
        """
        self.embed, self.group, self.iou = embed, group, iou
        self.distance, self.score_thresh = distance, score_thresh
        self.nearest_only = nearest_only
        self.calibrate = calibrate

    @classmethod
    def from_config(cls, cfg):
        keys = cfg.MINING.INTRA_PATIENT
        calibrations = {"fixed": None, "auto": partial(calibrate_on_marks, cfg)}
        if keys.THRESHOLD not in calibrations:
            raise ValueError(f"MINING.INTRA_PATIENT.THRESHOLD is neither fixed nor auto: {keys.THRESHOLD!r}")
        return {
            "embed": build_embed(cfg),
            "group": cfg.MINING.PROPOSALS,
            "iou": cfg.MINING.IOU,
            "distance": keys.DISTANCE,
            "score_thresh": keys.SCORE_THRESH,
            "nearest_only": keys.NEAREST_ONLY,
            "calibrate": calibrations[keys.THRESHOLD],
        }

    def __call__(self, patient: Patient) -> list[Finding]:
        if len({volume.record["series"] for volume in patient}) < 2:
            return []
        annotations = [(volume, lesion) for volume in patient for lesion in _annotations(volume.record)]
        tracklets = [(volume, *tracklet) for volume in patient for tracklet in self._unknown(volume)]
        if not annotations or not tracklets:
            return []
        distances = self._distances(annotations, tracklets)
        own_series = np.array([volume.record["series"] for volume, _ in annotations])
        series = np.array([volume.record["series"] for volume, *_ in tracklets])
        distances[own_series[:, None] == series] = np.inf
        if self.nearest_only:
            distances = _only_nearest(distances, [volume.record["volume"] for volume, *_ in tracklets])
        nearest, best = distances.argmin(axis=0), distances.min(axis=0)
        findings = []
        for i in np.argsort(best, kind="stable")[: int((best < self.distance).sum())]:
            volume, number, _ = tracklets[i]
            findings.append(
                Finding(
                    volume.record["volume"],
                    f"{volume.record['volume']}/{self.group}-{number}",
                    volume.detections[self.group].boxes_of(number),
                    annotation=annotations[nearest[i]][1]["id"],
                    distance=float(best[i]),
                )
            )
        return findings

    def learn(self, records: Sequence[dict]) -> dict:
        return {} if self.calibrate is None else self.calibrate(self.embed, records)

    def use(self, learnt: dict) -> None:
        self.distance = learnt.get("distance", self.distance)

    def _unknown(self, volume: PatientVolume) -> list[tuple[int, np.ndarray]]:
        """Number and best slice box of each tracklet that is to be compared."""
        found = volume.detections[self.group]
        overlaps = tracklet_overlaps(found, volume.known.of_status(BoxStatus.LESION))
        unknown = (overlaps.max(axis=1, initial=0.0) <= self.iou) & (found.scores >= self.score_thresh)
        return list(zip(np.flatnonzero(unknown), best_slice_boxes(found)[unknown], strict=True))

    def _distances(self, annotations: list, tracklets: list) -> np.ndarray:
        """(annotations, tracklets) L2 distances of the embeddings."""
        marks = [(volume.record, *_key_box(lesion)) for volume, lesion in annotations]
        boxes = [(volume.record, int(box[0]), box[1:5]) for volume, _, box in tracklets]
        embedded = self.embed(marks + boxes)
        return cdist(embedded[: len(marks)], embedded[len(marks) :])


def calibrate_on_marks(cfg: CfgNode, embed: Embed, records: Sequence[dict]) -> dict:
    """Delta from the pairs of marks of which the mined datasets tell whether they are of one lesion."""
    marks = []
    for name in mined_datasets(cfg):
        own = [record for record in records if record["dataset"] == MetadataCatalog.get(name).expert]
        marks += collect_marks(own, read_places(root_of(name) / "DeepLesion" / "DL_info.csv"))
    return calibrate(embed, marks, cfg.MODEL.EMBEDDING.CALIBRATION_PRECISION).to_dict()


def _annotations(record: dict) -> list[dict]:
    """The lesions of a record that are given and have a box."""
    return [lesion for lesion in record["lesions"] if lesion["status"] == "annotation" and lesion["boxes"]]


def _key_box(lesion: dict) -> tuple[int, np.ndarray]:
    """Slice and box of an annotation: that of its key slice, or the middle one."""
    on_key = [box for box in lesion["boxes"] if box[0] == lesion["key_slice"]]
    z, *box = on_key[0] if on_key else lesion["boxes"][len(lesion["boxes"]) // 2]
    return int(z), np.array(box, dtype=float)


def _only_nearest(distances: np.ndarray, volumes: list[str]) -> np.ndarray:
    """Distances (annotations, tracklets), infinite but for an annotation's nearest tracklet of each sub-volume."""
    nearest = np.full_like(distances, np.inf)
    of_column = np.array(volumes)
    for volume in sorted(set(volumes)):
        columns = np.flatnonzero(of_column == volume)
        rows, chosen = np.arange(len(distances)), columns[distances[:, columns].argmin(axis=1)]
        nearest[rows, chosen] = distances[rows, chosen]
    return nearest
