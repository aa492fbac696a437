"""Multilevel contextual 3D networks MLC3D (Dou et al., TBME 2017), a comparison in Lesion-Harvester."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import configurable
from torch import Tensor, nn

from ...data.patches import PatchGrid
from ..views import IntensityWindow
from .build import CLASSIFIER_REGISTRY


class Network(NamedTuple):
    """One of the three networks, z, y, x throughout.

    Attributes:
        kernels: of its convolutions.
        pool: after the first convolution.
        bins: of the map that its FC layer sees.
        share: weight of its probability in the fused one.
    """

    kernels: Sequence[tuple[int, int, int]]
    pool: tuple[int, int, int]
    bins: tuple[int, int, int]
    share: float


NETWORKS = (
    Network([(3, 5, 5), (3, 5, 5), (1, 5, 5)], (1, 1, 1), (2, 8, 8), 0.3),
    Network([(3, 5, 5), (3, 5, 5), (3, 5, 5)], (1, 2, 2), (4, 5, 5), 0.4),
    Network([(3, 5, 5), (3, 5, 5), (3, 5, 5)], (2, 2, 2), (8, 10, 10), 0.3),
)


@CLASSIFIER_REGISTRY.register()
class MLC3D(nn.Module):
    """Classifier by three plain 3D networks for three sizes of surroundings, whose probabilities are fused.

    The networks are those of Dou et al. (theirs saw 20x20x6, 30x30x10 and 40x40x26 voxels), but convolutions keep
    the size of their maps, which are then averaged to the bins that theirs had: Lesion-Harvester's scales are too
    flat for unpadded kernels. The box is not used.
    """

    @configurable
    def __init__(
        self,
        *,
        grid: PatchGrid,
        window: IntensityWindow,
        scales: Sequence[tuple[int, int, int]],
        width: int = 64,
        fc_dim: int = 256,
    ):
        """
        Args:
            grid: of the patches.
            window: from HU to the networks' input.
            scales: voxels along z, y, x, cut from the middle of the patch, for each of NETWORKS.
            width: channels of all convolutions.
            fc_dim: width of the FC layers.
        """
        super().__init__()
        self.grid, self.window, self.scales = grid, window, [tuple(scale) for scale in scales]
        self.levels = nn.ModuleList(
            _build(network, width, fc_dim) for network in NETWORKS
        )  # the checkpoints' name
        self.register_buffer("shares", torch.tensor([network.share for network in NETWORKS]), persistent=False)

    @classmethod
    def from_config(cls, cfg):
        """Read the keys of a classifier, as ``MODEL.LPC``."""
        shape = tuple(max(sizes) for sizes in zip(*cfg.SCALES, strict=True))
        return {
            "grid": PatchGrid(shape, tuple(cfg.PATCH_SPACING)),
            "window": IntensityWindow(cfg.HU_WINDOW, cfg.PIXEL_MEAN, cfg.PIXEL_STD),
            "scales": cfg.SCALES,
            "width": cfg.WIDTH,
            "fc_dim": cfg.FC_DIM,
        }

    def load_initial_weights(self, source: str) -> None:
        """Load nothing: no part of it is a ResNet-18."""
        logging.getLogger(__name__).info("MLC3D starts from random weights; it has no use for %r", source)

    def forward(self, patches: Tensor, boxes: Tensor) -> Tensor:
        """Classify proposals.

        Args:
            patches: (n, 1, D, H, W) HU.
            boxes: (n, 6), not used.

        Returns:
            (n, 3) logits of the networks in training, (n,) logits of the fused probability otherwise.
        """
        image = self.window(patches)
        logits = [network(_middle(image, scale)) for network, scale in zip(self.levels, self.scales, strict=True)]
        logits = torch.cat(logits, dim=1)
        return logits if self.training else torch.logit(logits.sigmoid() @ self.shares, eps=1e-6)


def _build(network: Network, width: int, fc_dim: int) -> nn.Sequential:
    """(n, 1, d, h, w) -> (n, 1) logits."""
    layers, before = [], 1
    for number, kernel in enumerate(network.kernels):
        conv = nn.Conv3d(before, width, kernel, padding=tuple(size // 2 for size in kernel))
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)
        layers += [conv, nn.ReLU(inplace=True)]
        if number == 0:
            layers.append(nn.MaxPool3d(network.pool, ceil_mode=True))
        before = width
    bins = network.bins[0] * network.bins[1] * network.bins[2]
    head = [nn.Flatten(), nn.Linear(width * bins, fc_dim), nn.ReLU(inplace=True), nn.Linear(fc_dim, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(network.bins), *head)


def _middle(image: Tensor, scale: tuple[int, int, int]) -> Tensor:
    """The middle (n, C, *scale) of (n, C, D, H, W)."""
    for axis, (size, wanted) in enumerate(zip(image.shape[2:], scale, strict=True), start=2):
        image = image.narrow(axis, (size - wanted) // 2, wanted)
    return image
