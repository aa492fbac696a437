"""False-positive reduction after whole-volume inference: detections scored once more (LENS, Section IV-D)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from scipy.special import expit, logit
from torch import nn

from ..data.cache import CachedVolume, VolumeCache, build_cache
from ..modeling.classifiers import build_classifier
from ..structures.detections import VolumeDetections
from .volume import VolumeInference

Combine = Callable[[np.ndarray, np.ndarray], np.ndarray]


def mean(scores: np.ndarray, fpr_scores: np.ndarray) -> np.ndarray:
    """(n,) of (n,) and (n,): what the paper takes (Eq. 2)."""
    return (scores + fpr_scores) / 2


def mean_log_odds(scores: np.ndarray, fpr_scores: np.ndarray) -> np.ndarray:
    """(n,) the probability whose log odds are the mean of both scores' log odds.

    A detector whose best scores are all near 1 tells them apart by their odds; in the mean of the scores, the
    classifier alone would order them.
    """
    odds = [logit(np.clip(p, CERTAIN, 1 - CERTAIN)) for p in (scores, fpr_scores)]
    return expit(mean(*odds))


# MODEL.FPR.COMBINE: the final score, from the detector's and the classifier's.
COMBINE: dict[str, Combine] = {"mean": mean, "mean_log_odds": mean_log_odds}
CERTAIN = 1e-6  # no score is taken to be surer


def load_classifier(cfg: CfgNode, role: str = "FPR", weights: str | None = None) -> nn.Module:
    """The trained classifier ``MODEL.<role>``, from its WEIGHTS where no other file is given.

    Raises:
        DataError: the checkpoint is absent, damaged or of another architecture.
    """
    from ..io.checkpoint import LENSCheckpointer

    classifier = build_classifier(cfg, role)
    LENSCheckpointer(classifier, whole=True).load(weights or cfg.MODEL[role].WEIGHTS)
    return classifier.eval()


@torch.no_grad()
def classify(classifier: nn.Module, volume: CachedVolume, boxes: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """What a classifier says of the detections of one volume.

    Args:
        boxes: (n, 6) x1, y1, z1, x2, y2, z2 in the file's frame.

    Returns:
        (n,) probabilities
    """
    device = next(classifier.parameters()).device
    scores = [np.zeros(0)]
    order = np.argsort(boxes[:, 2], kind="stable")  # a batch lies close together along z
    for start in range(0, len(boxes), batch_size):
        patches, inside = classifier.grid.crop(volume, boxes[order[start : start + batch_size]])
        logits = classifier(torch.from_numpy(patches)[:, None].to(device), torch.from_numpy(inside).to(device))
        scores.append(logits.sigmoid().double().cpu().numpy())
    result = np.zeros(len(boxes))
    result[order] = np.concatenate(scores)
    return result


def score_proposals(
    cfg: CfgNode, classifier: nn.Module, records: Iterable[dict], proposals: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """What a classifier says of 3D proposals, volume after volume.

    Args:
        cfg: names the cache of the volumes, and ``MODEL.LPC.BATCH_SIZE_TEST``.
        classifier: of :func:`load_classifier`.
        records: of the volumes. proposals: (n, 6) boxes in the file's frame, by sub-volume; looked up one after
            another.

    Yields:
        name and (n,) probabilities of each sub-volume, in the order of the records; (0,) where it has none.
    """
    cache, batch_size = build_cache(cfg), cfg.MODEL.LPC.BATCH_SIZE_TEST
    for record in records:
        boxes = np.asarray(proposals.get(record["volume"], ()), dtype=np.float64).reshape(-1, 6)
        scores = classify(classifier, cache.open(record), boxes, batch_size) if len(boxes) else np.zeros(0)
        yield record["volume"], scores


def rescore(detections: VolumeDetections, fpr_scores: np.ndarray, combine: Combine = mean) -> VolumeDetections:
    """Detections whose final scores combine the detector's and the classifier's.

    The boxes of single slices combine their own score and their detection's.
    """
    slice_boxes = detections.slice_boxes.copy()
    slice_boxes[:, 5] = combine(slice_boxes[:, 5], fpr_scores[detections.slice_detection])
    scores = combine(detections.scores, fpr_scores)
    return replace(detections, scores=scores, slice_boxes=slice_boxes, fpr_scores=fpr_scores)


class RescoredInference(nn.Module):
    """Whole-volume inference followed by a classifier; called and answering as the inference that it wraps."""

    @configurable
    def __init__(
        self,
        inference: nn.Module,
        classifier: nn.Module,
        *,
        cache: VolumeCache,
        outputs: tuple[str, ...] = ("fused",),
        batch_size: int = 32,
        combine: str = "mean",
    ):
        """
        Args:
            inference: whole-volume inference; ``detect`` gives {name: VolumeDetections} of a volume.
            classifier: of the CLASSIFIER registry, trained.
            outputs: the detections that are scored again; those of other names stay as they are.
            batch_size: detections that are classified together.
            combine: name in :data:`COMBINE`.

        Raises:
            ValueError: it is none of them.
        """
        super().__init__()
        if combine not in COMBINE:
            raise ValueError(f"MODEL.FPR.COMBINE is none of {', '.join(COMBINE)}: {combine!r}")
        self.combine = COMBINE[combine]
        self.inference, self.classifier = inference, classifier
        self.cache, self.outputs, self.batch_size = cache, tuple(outputs), batch_size

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        inference: nn.Module,
        classifier: nn.Module | None = None,
        cache: VolumeCache | None = None,
    ):
        return {
            "inference": inference,
            "classifier": load_classifier(cfg) if classifier is None else classifier,
            "cache": build_cache(cfg) if cache is None else cache,
            "outputs": (cfg.MODEL.LENS.OUTPUT,),
            "batch_size": cfg.MODEL.FPR.BATCH_SIZE_TEST,
            "combine": cfg.MODEL.FPR.COMBINE,
        }

    def forward(self, records: list[dict]) -> list[dict]:
        return [
            {"volume": record["volume"], "detections": self.detect(self.cache.open(record))} for record in records
        ]

    def detect(self, volume: CachedVolume) -> dict[str, VolumeDetections]:
        """Rescored 3D detections of one volume, in the frame of its file."""
        detections = dict(self.inference.detect(volume))
        for name in self.outputs:
            scores = classify(self.classifier, volume, detections[name].boxes, self.batch_size)
            detections[name] = rescore(detections[name], scores, self.combine)
        return detections


def build_inference(
    cfg: CfgNode, model: nn.Module, cache: VolumeCache | None = None, shows_progress: bool = False
) -> nn.Module:
    """Whole-volume inference of a LENS, rescored where ``MODEL.FPR.WEIGHTS`` names a trained classifier.

    Args:
        cfg: of the model and the classifier.
        model: a LENS.
        cache: of the volumes; else the one that ``cfg`` describes.
        shows_progress: whether a bar tells how far a volume is.

    Raises:
        DataError: the classifier's checkpoint cannot be loaded.
    """
    cache = build_cache(cfg) if cache is None else cache
    inference = VolumeInference(cfg, model, cache=cache, shows_progress=shows_progress)
    return RescoredInference(cfg, inference, cache=cache) if cfg.MODEL.FPR.WEIGHTS else inference
