"""Training of a classifier of detections (LENS, Section VI-B)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn

from ..data.cache import build_cache
from ..data.detection_samples import DetectionSamples, PatchDataset
from ..data.epochs import EpochBatchSampler
from ..modeling.classifiers import build_classifier, load_inflated_weights
from ..structures import VolumeDetections
from .network_trainer import NetworkTrainer, stage_config


class ClassifierObjective(nn.Module):
    """The focal loss of a classifier, mean over a batch."""

    def __init__(self, classifier: nn.Module, alpha: float, gamma: float):
        super().__init__()
        self.classifier, self.alpha, self.gamma = classifier, alpha, gamma

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``batch``: "patch" (n, 1, D, H, W), "box" (n, 6), "is_lesion" (n,), as the dataset gives them."""
        device = next(self.classifier.parameters()).device
        logits = self.classifier(batch["patch"].to(device), batch["box"].to(device))
        target = batch["is_lesion"].to(device)
        return {"loss_fpr": sigmoid_focal_loss(logits, target, self.alpha, self.gamma, reduction="mean")}


def train_fpr(
    cfg: CfgNode, records: list[dict], detections: Mapping[str, VolumeDetections], resume: bool = False
) -> str:
    """Train MODEL.FPR on the true and false positives of a detector.

    Args:
        cfg: of the whole run; checkpoints go to ``OUTPUT_DIR/fpr``.
        records: of the training volumes, with annotations, mined ones and uncertain regions.
        detections: the detector's, by sub-volume.
        resume: go on from the last checkpoint, if there is one.

    Returns:
        the file of the trained classifier, for ``MODEL.FPR.WEIGHTS``.

    Raises:
        DataError: no true or no false positive, unreadable weights or volumes.
    """
    fpr, stage = cfg.MODEL.FPR, stage_config(cfg, cfg.MODEL.FPR, "fpr")
    samples = DetectionSamples.from_detections(records, detections, fpr.TP_IOU, fpr.FP_IOU)
    true = int(samples.is_lesion.sum())
    logging.getLogger(__name__).info("%d true, %d false positives", true, len(samples) - true)
    seed_all_rng(max(cfg.SEED, 0))
    classifier = build_classifier(cfg)
    trainer = NetworkTrainer(
        stage,
        classifier,
        ClassifierObjective(classifier, fpr.FOCAL_ALPHA, fpr.FOCAL_GAMMA),
        PatchDataset(records, samples, build_cache(cfg), classifier.grid, fpr.SHIFT_MM, fpr.MIRROR),
        EpochBatchSampler(
            partial(samples.draw, fp_per_tp=fpr.FP_PER_TP), stage.SOLVER.IMS_PER_BATCH, max(cfg.SEED, 0)
        ),
    )
    if not (resume and trainer.checkpointer.has_checkpoint()):
        load_inflated_weights(classifier.trunk, fpr.BACKBONE_WEIGHTS)
    return trainer.run(resume)
