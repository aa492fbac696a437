"""Adaptation of the backbone to several datasets, the "domain adaptation layers" of LENS (Sections IV-A, VI-D).

``MODEL.DENSENET.ADAPTERS`` names one:

    residual           parallel residual adapters (Rebuffi et al., CVPR 2018): each dataset has 1x1 convolutions of
                       its own beside the 3x3 convolutions that all share
    domain_attention   a bank of squeeze-and-excitation adapters after each dense block, mixed by an assignment
                       that the image itself gives (Wang et al., CVPR 2019)

To add one, write a function under ``@ADAPTERS.register()`` that takes a :class:`DenseNet25D
<lens_d2.modeling.backbone.DenseNet25D>` and the names of the datasets' experts, and changes the backbone in place.
It returns the names among which each forward pass has to name one; none if the image decides.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fvcore.common.registry import Registry
from torch import Tensor, nn

ADAPTERS = Registry("ADAPTERS")
ADAPTERS.__doc__ = "Adaptations of the backbone to datasets, by the names that MODEL.DENSENET.ADAPTERS has."

# Channels by hidden channels of a squeeze-and-excitation adapter (Wang et al.), and the bias at which their gates
# start: nearly open, so that pretrained features keep their meaning.
REDUCTION, OPEN = 16, 3.0


class ExpertFeatures(dict):
    """{expert: {name: map}}, where a backbone has different maps for different experts."""


def features_of(features: dict[str, Tensor] | ExpertFeatures, expert: str) -> dict[str, Tensor]:
    """Select the maps that an expert sees: its own, or those of all experts."""
    return features[expert] if isinstance(features, ExpertFeatures) else features


class AdaptedConv2d(nn.Conv2d):
    """A 3x3 convolution beside which each dataset has a 1x1 convolution.

    The sum of both is one 3x3 convolution, with the adapter's weight added to the centre of the shared one.
    Adapters start at zero.
    """

    def __init__(self, conv: nn.Conv2d, domains: tuple[str, ...]):
        """
        Args:
            conv: 3x3 and without bias; its weight, under its name, becomes the shared one.
            domains: names of the datasets' experts.
        """
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, bias=False)
        self.weight = conv.weight
        self.adapters = nn.ParameterDict({name: torch.zeros(conv.weight.shape[:2]) for name in domains})
        self.domain: str | None = None

    def weight_of(self, domain: str | None) -> Tensor:
        """(out, in, 3, 3) weight for images of a dataset.

        Raises:
            ValueError: no dataset is named, or one without adapters.
        """
        if domain not in self.adapters:
            known = ", ".join(self.adapters)
            raise ValueError(f"residual adapters must know the dataset of an image: {domain!r} is none of {known}")
        return self.weight + F.pad(self.adapters[domain][..., None, None], (1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) to (n, out, h, w), for images of ``self.domain``."""
        return self._conv_forward(x, self.weight_of(self.domain), None)


class DomainAttention(nn.Module):
    """Channel gates from several squeeze-and-excitation adapters, mixed by a soft assignment to domains."""

    def __init__(self, channels: int, domains: int):
        """
        Args:
            channels: of the maps.
            domains: number of adapters.
        """
        super().__init__()
        hidden = max(channels // REDUCTION, 1)
        self.adapters = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
            for _ in range(domains)
        )
        self.assign = nn.Linear(channels, domains)
        for adapter in self.adapters:
            nn.init.constant_(adapter[-1].bias, OPEN)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w), each channel of each image times a number in (0, 1)."""
        pooled = x.mean(dim=(2, 3))
        excited = torch.stack([adapter(pooled) for adapter in self.adapters], dim=2)  # (n, C, domains)
        assignment = self.assign(pooled).softmax(dim=1)
        gate = (excited @ assignment[..., None].to(excited.dtype))[..., 0].sigmoid()
        return x * gate[..., None, None].to(x.dtype)


@ADAPTERS.register()
def residual(backbone: nn.Module, domains: tuple[str, ...]) -> tuple[str, ...]:
    """Give each dataset 1x1 convolutions beside the 3x3 convolutions of the dense layers."""
    for block in (backbone.block1, backbone.block2, backbone.block3):
        for layer in block.values():
            layer.conv2 = AdaptedConv2d(layer.conv2, domains)
    return domains


@ADAPTERS.register()
def domain_attention(backbone: nn.Module, domains: tuple[str, ...]) -> tuple[str, ...]:
    """Put an adapter bank, as many adapters as datasets, after each dense block."""
    widths = [lateral.in_channels for lateral in backbone.laterals]
    backbone.after_block = nn.ModuleList(DomainAttention(width, len(domains)) for width in widths)
    return ()
