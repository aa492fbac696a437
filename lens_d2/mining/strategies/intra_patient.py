"""Intra-patient lesion matching (LENS, Section V-B)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from detectron2.config import configurable

from ...modeling.targets import BoxStatus
from ..findings import Finding, Patient, PatientVolume, best_slice_boxes, tracklet_overlaps
from .strategy import STRATEGIES, Strategy

# (record, slice, (4,) box in the volume frame) of n 2D boxes -> (n, d) float32, L2-normalised.
Embed = Callable[[list[tuple[dict, int, np.ndarray]]], np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """How a distance threshold follows from lesions whose identity is known, see :meth:`IntraPatient.calibrate`.

    Attributes:
        same: share of same-lesion pairs that the threshold is to reach.
        wrong: share of annotations that may have a wrong tracklet nearer than the threshold.
        patients: at most so many are looked at.
    """

    same: float = 0.9
    wrong: float = 0.1
    patients: int = 200


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
        calibration: Calibration | None = None,
    ):
        """
        Args:
            embed: gives embeddings of boxes.
            group: of the proposals that are compared: "fused" or an expert.
            iou: theta: a tracklet with a larger key-slice IoU with an annotation, given or mined, is known.
            distance: delta.
            score_thresh: tracklets with a lower score are not compared.
            nearest_only: of the tracklets of one sub-volume, an annotation matches only the nearest.
            calibration: replaces ``distance`` by what the annotations say; None: not.
        """
        self.embed, self.group, self.iou = embed, group, iou
        self.distance, self.score_thresh = distance, score_thresh
        self.nearest_only = nearest_only
        self.calibration = calibration

    @classmethod
    def from_config(cls, cfg):
        from ...modeling.embedding import build_embed

        keys = cfg.MINING.INTRA_PATIENT
        ways = {
            "fixed": None,
            "auto": Calibration(keys.CALIBRATION_SAME, keys.CALIBRATION_WRONG, keys.CALIBRATION_PATIENTS),
        }
        if keys.THRESHOLD not in ways:
            raise ValueError(f"MINING.INTRA_PATIENT.THRESHOLD is neither fixed nor auto: {keys.THRESHOLD!r}")
        return {
            "embed": build_embed(cfg),
            "group": cfg.MINING.PROPOSALS,
            "iou": cfg.MINING.IOU,
            "distance": keys.DISTANCE,
            "score_thresh": keys.SCORE_THRESH,
            "nearest_only": keys.NEAREST_ONLY,
            "calibration": ways[keys.THRESHOLD],
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

    def calibrate(self, sample: Callable[[int], Iterable[Patient]], gather: Callable[[object], list]) -> dict:
        """Delta from the annotations' own sub-volumes, where it is known what is the same lesion.

        Same-lesion pairs are an annotation and the boxes on other slices of the tracklet that it lies on. All
        other tracklets of the sub-volume are certainly another lesion, or none: the nearest of them tells how
        near a wrong match comes. Delta is the distance below which the share ``calibration.same`` of the
        same-lesion pairs lies, or less, so that at most the share ``calibration.wrong`` of the annotations has
        a wrong tracklet nearer than it.
        """
        if self.calibration is None:
            return {}
        same, wrong = [], []
        for patient in sample(self.calibration.patients):
            for volume in patient:
                own_same, own_wrong = self._own_volume(volume)
                same += own_same
                wrong += own_wrong
        same = np.array([x for share in gather(same) for x in share])
        wrong = np.array([x for share in gather(wrong) for x in share])
        if not len(same) or not len(wrong):
            return {"distance": self.distance, "same_pairs": len(same), "wrong_pairs": len(wrong)}
        reached = float(np.quantile(same, self.calibration.same))
        distance = min(reached, float(np.quantile(wrong, self.calibration.wrong)))
        return {
            "distance": distance,
            "same_pairs": len(same),
            "same_below": float((same < distance).mean()),
            "same_median": float(np.median(same)),
            "wrong_pairs": len(wrong),
            "wrong_below": float((wrong < distance).mean()),
            "wrong_median": float(np.median(wrong)),
        }

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
        embedded = np.asarray(self.embed(marks + boxes), dtype=np.float64)
        return np.linalg.norm(embedded[: len(marks), None] - embedded[None, len(marks) :], axis=2)

    def _own_volume(self, volume: PatientVolume) -> tuple[list[float], list[float]]:
        """Of one sub-volume: distances of same-lesion pairs, and of each annotation to the nearest wrong one."""
        found = volume.detections[self.group]
        overlaps = tracklet_overlaps(found, volume.known)
        unknown = (overlaps.max(axis=1, initial=0.0) == 0) & (found.scores >= self.score_thresh)
        wrong_boxes = best_slice_boxes(found)[unknown]
        same, wrong = [], []
        for lesion in _annotations(volume.record):
            own = np.array([name == lesion["id"] for name in volume.known.lesions])
            best = overlaps[:, own].max(axis=1, initial=0.0)
            if not len(found) or best.max() <= self.iou:
                continue
            z, box = _key_box(lesion)
            others = found.boxes_of(best.argmax())
            others = others[others[:, 0] != z]
            pairs = [(volume.record, int(b[0]), b[1:5]) for b in others]
            pairs += [(volume.record, int(b[0]), b[1:5]) for b in wrong_boxes]
            if not pairs:
                continue
            embedded = np.asarray(self.embed([(volume.record, z, box), *pairs]), dtype=np.float64)
            distances = np.linalg.norm(embedded[1:] - embedded[0], axis=1)
            same += distances[: len(others)].tolist()
            if len(wrong_boxes):
                wrong.append(float(distances[len(others) :].min()))
        return same, wrong


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
