"""Training of the classifiers of detections: LENS's false-positive reduction, Lesion-Harvester's LPC."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn

from ..data.cache import build_cache
from ..data.detection_samples import DetectionSamples, PatchDataset
from ..data.sampler import EpochBatchSampler
from ..io.checkpoint import LENSCheckpointer
from ..modeling.classifiers import build_classifier, build_loss
from ..structures.detections import VolumeDetections
from .network_trainer import NetworkTrainer, stage_config


class ClassifierObjective(nn.Module):
    """Loss of a classifier, mean over a batch."""

    def __init__(self, classifier: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], name: str):
        """
        Args:
            classifier: that is trained.
            loss: of logits and targets; see :func:`build_loss`.
            name: under which the loss is logged.
        """
        super().__init__()
        self.classifier, self.loss, self.name = classifier, loss, name

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            batch: "patch" (n, 1, D, H, W), "box" (n, 6), "is_lesion" (n,), as the dataset gives them.
        """
        device = next(self.classifier.parameters()).device
        logits = self.classifier(batch["patch"].to(device), batch["box"].to(device))
        target = batch["is_lesion"].to(device).reshape(-1, *[1] * (logits.dim() - 1)).expand_as(logits)
        return {self.name: self.loss(logits, target)}


def train_classifier(
    cfg: CfgNode, role: str, records: list[dict], samples: DetectionSamples, resume: bool = False, start: str = ""
) -> str:
    """Train the classifier MODEL.<role> with its own loss, sampling and SOLVER.

    Args:
        cfg: of the whole run; checkpoints go to ``OUTPUT_DIR/<role in lower case>``.
        role: "FPR" or "LPC".
        records: of the training volumes.
        samples: from these.
        resume: start from the last checkpoint, if there is one.
        start: a trained classifier of the same architecture to be fine-tuned. Empty: BACKBONE_WEIGHTS.

    Returns:
        file of the trained classifier, for ``MODEL.<role>.WEIGHTS``.

    Raises:
        DataError: unreadable weights or volumes.
    """
    keys, stage = cfg.MODEL[role], stage_config(cfg, cfg.MODEL[role], role.lower())
    true = int(samples.is_lesion.sum())
    logging.getLogger(__name__).info("%s: %d true, %d false positives", keys.NAME, true, len(samples) - true)
    seed_all_rng(max(cfg.SEED, 0))
    classifier = build_classifier(cfg, role)
    trainer = NetworkTrainer(
        stage,
        classifier,
        ClassifierObjective(classifier, build_loss(keys), f"loss_{role.lower()}"),
        PatchDataset(records, samples, build_cache(cfg), classifier.grid, keys.SHIFT_MM, keys.MIRROR),
        EpochBatchSampler(
            partial(samples.draw, fp_per_tp=keys.FP_PER_TP), stage.SOLVER.IMS_PER_BATCH, max(cfg.SEED, 0)
        ),
    )

    def begin():
        if start:
            LENSCheckpointer(classifier).load(start)
        else:
            classifier.load_initial_weights(keys.BACKBONE_WEIGHTS)

    return trainer.run(resume, begin)


def train_fpr(
    cfg: CfgNode, records: list[dict], detections: Mapping[str, VolumeDetections], resume: bool = False
) -> str:
    """Train MODEL.FPR on the true and false positives of a detector (LENS, Section VI-B).

    Args:
        cfg: of the whole run; checkpoints go to ``OUTPUT_DIR/fpr``.
        records: of the training volumes, with annotations, mined ones and uncertain regions.
        detections: the detector's, by sub-volume.
        resume: start from the last checkpoint, if there is one.

    Returns:
        file of the trained classifier, for ``MODEL.FPR.WEIGHTS``.

    Raises:
        DataError: no true or no false positive, unreadable weights or volumes.
    """
    fpr = cfg.MODEL.FPR
    samples = DetectionSamples.from_detections(
        records, detections, fpr.TP_IOU, fpr.FP_IOU, fpr.FP_SCORE_THRESH, fpr.FP_SCORE_POWER
    )
    return train_classifier(cfg, "FPR", records, samples, resume)


def train_lpc(
    cfg: CfgNode,
    records: list[dict],
    positives: Mapping[str, np.ndarray],
    negatives: Mapping[str, np.ndarray],
    resume: bool = False,
    start: str = "",
) -> str:
    """Train MODEL.LPC on 3D proposals that are known to be lesions or not (Lesion-Harvester, Section III-C).

    Args:
        cfg: of the whole run; checkpoints go to ``OUTPUT_DIR/lpc``.
        records: of the volumes.
        positives: P_H^R and P_M^R: (n, 6) boxes x1, y1, z1, x2, y2, z2 in the volume frame, by sub-volume.
        negatives: P_M^-, in the same form.
        resume: start from the last checkpoint, if there is one.
        start: the last round's classifier, to be fine-tuned. Empty: BACKBONE_WEIGHTS.

    Returns:
        file of the trained classifier, for ``MODEL.LPC.WEIGHTS``.

    Raises:
        DataError: no positive or no negative, unreadable weights or volumes.
    """
    samples = DetectionSamples.from_proposals(records, positives, negatives)
    return train_classifier(cfg, "LPC", records, samples, resume, start)
