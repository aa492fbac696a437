"""All experts' proposals at inference, by one convolution for the first layers of all their branches."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ..modeling.afp import AFP
from ..modeling.heatmaps import OutputBranch
from ..modeling.meta_arch import Propose
from .winograd import WinogradConv2d

# From this many channels on, on both sides, Winograd's transforms cost a CPU less than they save. GPU libraries
# choose such things by themselves.
WINOGRAD_CHANNELS = 128


def joint_proposals(generators: Iterable[nn.Module]) -> Propose:
    """Build a function from images and feature maps to every generator's proposals, experts x images.

    It captures the generators' weights: later changes may not take effect.
    """
    generators = list(generators)
    if all(map(_has_output_branches, generators)) and len({g.in_feature for g in generators}) == 1:
        return JointAFP(generators)
    return lambda images, features: [generator(images, features)[0] for generator in generators]


def _has_output_branches(generator: nn.Module) -> bool:
    return isinstance(generator, AFP) and all(
        isinstance(branch, OutputBranch) for branch in (generator.centerness, generator.distances)
    )


class JointAFP:
    """Several AFPs on one feature map: the first layers of all their branches are one convolution.

    That convolution is most of the work, and one wide convolution is faster than many narrow ones.
    """

    def __init__(self, generators: list[AFP]):
        self.generators = generators
        branches = [branch for g in generators for branch in (g.centerness, g.distances)]
        weight = torch.cat([branch[0].weight for branch in branches])
        bias = torch.cat([branch[0].bias for branch in branches])
        self.widths = [branch[0].out_channels for branch in branches]
        on_cpu = weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        winograd = on_cpu and min(weight.shape[:2]) >= WINOGRAD_CHANNELS
        self.first = WinogradConv2d(weight, bias) if winograd else lambda x: F.conv2d(x, weight, bias, padding=1)
        self.last = [branch[-1] for branch in branches]

    def __call__(self, images: ImageList, features: dict[str, Tensor]) -> list[list[Instances]]:
        """Every generator's proposals, experts x images."""
        feature = features[self.generators[0].in_feature]
        together = 1 if feature.device.type == "cpu" else len(feature)  # a CPU's caches hold one
        maps = [self.branches(images) for images in feature.split(together)]
        outputs = [torch.cat(of_branch) for of_branch in zip(*maps, strict=True)]
        return [
            generator.propose(outputs[2 * i], outputs[2 * i + 1], images.image_sizes)
            for i, generator in enumerate(self.generators)
        ]

    def branches(self, feature: Tensor) -> list[Tensor]:
        """Output maps (n, 1 or 4, H, W) of all branches: each expert's centerness and distances in turn."""
        hidden = self.first(feature).relu_().split(self.widths, dim=1)
        return [last(part).float() for last, part in zip(self.last, hidden, strict=True)]
