"""LENS itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from lens_d2.data.loader import build_train_loader
from lens_d2.engine import build_optimizer
from lens_d2.inference.volume import VolumeInference


class Lens:
    """What every peer has: a model, its optimizer, batches, losses of a batch, inference over volumes."""

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: of LENS: its datasets, intensities and pixel size are every peer's.
        """
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.model = self.build_model()
        self.optimizer = self.build_optimizer()

    def build_model(self) -> nn.Module:
        return build_model(self.cfg)

    def build_optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.cfg, self.model)

    def batches(self) -> Iterator:
        return iter(build_train_loader(self.cfg))

    def losses(self, batch) -> dict[str, Tensor]:
        return self.model(batch)

    def inference(self) -> nn.Module:
        """Called with a list of records, it gives what the project's evaluators take."""
        return VolumeInference(self.cfg, self.model)
