"""Training of the lesion embedding (LENS, Section V-B)."""

from __future__ import annotations

import logging

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn

from ..data.cache import build_cache
from ..data.labelled_lesions import LabelledLesions, LesionPatchDataset
from ..data.lesion_labels import label_path, read_label_files
from ..data.loader import load_records
from ..data.sampler import EpochBatchSampler
from ..io.errors import DataError
from ..modeling.embedding import LesaNet
from ..modeling.embedding.losses import rhem_loss, triplet_loss, weighted_cross_entropy
from ..modeling.supervision import gather_over_ranks
from .network_trainer import NetworkTrainer, stage_config


class EmbeddingObjective(nn.Module):
    """Weighted sum of the embedding's four losses; their random draws follow from the batch's seeds.

    Labels and triplets are drawn from the batch of all ranks: a rank's own share may be too small for a triplet.
    """

    def __init__(self, network: LesaNet, class_weights: tuple[np.ndarray, np.ndarray], keys: CfgNode):
        """
        Args:
            network: that is trained.
            class_weights: (C,) each, of a positive and of a negative label.
            keys: ``MODEL.EMBEDDING``.
        """
        super().__init__()
        self.network = network
        self.keys, self.loss_weights = keys, tuple(keys.LOSS_WEIGHTS)
        for name, weight in zip(("positive_weight", "negative_weight"), class_weights, strict=True):
            self.register_buffer(name, torch.as_tensor(weight, dtype=torch.float32), persistent=False)
        self.to(next(network.parameters()).device)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch: samples of :class:`LesionPatchDataset`, collated.
        """
        device, keys = self.positive_weight.device, self.keys
        seed, patch, box, positive, known, reliable = (
            batch[name].to(device) for name in ("seed", "patch", "box", "positive", "known", "reliable")
        )
        embedding, logits, propagated = self.network(patch, box)
        weights = self.positive_weight, self.negative_weight
        seeds, embeddings, scores, labels, drawable = map(
            gather_over_ranks, (seed, embedding, logits, positive, reliable)
        )
        generator = torch.Generator().manual_seed(int(seeds.sum()))
        losses = {
            "loss_labels": weighted_cross_entropy(logits, positive, known, *weights),
            "loss_rhem": rhem_loss(scores, labels, drawable, generator, keys.RHEM_POWER, keys.RHEM_DRAWS),
            "loss_triplet": triplet_loss(
                embeddings, labels, generator, keys.TRIPLET_MARGIN, keys.TRIPLETS, keys.MIN_SIMILARITY
            ),
            "loss_propagated": weighted_cross_entropy(propagated, positive, known, *weights),
        }
        return {name: loss * w for (name, loss), w in zip(losses.items(), self.loss_weights, strict=True)}


def train_embedding(cfg: CfgNode, records: list[dict] | None = None, resume: bool = False) -> str:
    """Train MODEL.EMBEDDING on the labelled marks of the label file's training split.

    Args:
        cfg: of the whole run; checkpoints go to ``OUTPUT_DIR/embedding``.
        records: those of ``MODEL.EMBEDDING.DATASETS`` unless given.
        resume: start from the last checkpoint, if there is one.

    Returns:
        file of the trained network, for ``MODEL.EMBEDDING.WEIGHTS``.

    Raises:
        DataError: label files, volumes or initial weights cannot be read, or no mark has a label.
    """
    keys, stage = cfg.MODEL.EMBEDDING, stage_config(cfg, cfg.MODEL.EMBEDDING, "embedding")
    records = load_records(keys.DATASETS, build_cache(cfg)) if records is None else records
    labels, relations = read_label_files(cfg)
    lesions = LabelledLesions.from_records(records, labels.lesions["train"], relations)
    if not len(lesions):
        raise DataError(label_path(keys.LABELS), f"no mark of {', '.join(keys.DATASETS)} has a label")
    logging.getLogger(__name__).info(
        "%d labelled marks, %d labels, %.1f to a mark",
        len(lesions),
        len(labels.terms),
        lesions.targets.positive.sum(axis=1).mean(),
    )
    seed_all_rng(max(cfg.SEED, 0))
    network = LesaNet(cfg, len(labels.terms)).to(cfg.MODEL.DEVICE)
    trainer = NetworkTrainer(
        stage,
        network,
        EmbeddingObjective(network, lesions.class_weights(keys.MAX_POSITIVE_WEIGHT), keys),
        LesionPatchDataset(records, lesions, build_cache(cfg), network.grid, keys.BOX_JITTER),
        EpochBatchSampler(lesions.draw, stage.SOLVER.IMS_PER_BATCH, max(cfg.SEED, 0)),
    )
    return trainer.run(resume, begin=lambda: network.load_initial_weights(keys.BACKBONE_WEIGHTS))
