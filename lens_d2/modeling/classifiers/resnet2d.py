"""The trunk of torchvision's ResNet-18 for pictures of one channel, of any width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.models.resnet import BasicBlock

from ..pretrained import load_initial_weights

BLOCKS_PER_LAYER = 2
NUM_LAYERS = 4


class ResNet2D(nn.Module):
    """ResNet-18's stem and four blocks ("layers" to torchvision).

    Names, and so the keys of its state_dict, are torchvision's; at ``width`` 64 the sizes are, too, but for the
    first kernel, which takes one channel.

    Attributes:
        channels: of the four blocks' outputs.
    """

    def __init__(self, width: int = 64):
        """
        Args:
            width: channels of the first block.
        """
        super().__init__()
        self.channels = [width * 2**i for i in range(NUM_LAYERS)]
        self.conv1 = nn.Conv2d(1, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        before = width
        for i, channels in enumerate(self.channels):
            self.add_module(f"layer{i + 1}", _layer(before, channels, stride=1 if i == 0 else 2))
            before = channels

    @property
    def blocks(self) -> list[nn.Sequential]:
        """The four blocks, in order."""
        return [self.get_submodule(f"layer{i + 1}") for i in range(NUM_LAYERS)]

    def stem(self, x: Tensor) -> Tensor:
        """What comes before the blocks: stride 4."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, 1, H, W) -> outputs of the four blocks, (n, channels[i], H / s, W / s), s = 4, 8, 16, 32."""
        x = self.stem(x)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs


def _layer(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """One of ResNet-18's four blocks."""
    downsample = None
    if stride != 1 or in_channels != channels:
        projection = nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False)
        downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))
    blocks = [BasicBlock(in_channels, channels, stride, downsample)]
    blocks += [BasicBlock(channels, channels) for _ in range(BLOCKS_PER_LAYER - 1)]
    layer = nn.Sequential(*blocks)
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return layer


def fit_kernel(weight: Tensor, shape: torch.Size) -> Tensor:
    """A 2D kernel in another shape; a tensor that is no kernel, or has the shape, is returned as it is.

    A kernel over colours becomes one over grey values by their sum; a deep one is the 2D one repeated along z,
    divided by the depth (I3D).
    """
    if weight.dim() != 4 or len(shape) < 4:
        return weight
    if shape[1] == 1:
        weight = weight.sum(dim=1, keepdim=True)
    return weight if len(shape) == 4 else weight[:, :, None].expand(-1, -1, shape[2], -1, -1) / shape[2]


def load_resnet18_weights(trunk: ResNet2D, source: str) -> None:
    """Start a trunk, flat or turned 3D, from a ResNet-18; ``source`` as for :func:`load_initial_weights`."""
    load_initial_weights(trunk, source, ResNet18_Weights.IMAGENET1K_V1, fit=fit_kernel)
