"""The output branches of the anchor-free heads, AFP's and CenterNet's."""

from __future__ import annotations

import math

from torch import nn


def output_branch(
    in_channels: int, hidden: int, out_channels: int, kernel_size: int, start: float
) -> nn.Sequential:
    """A 3x3 convolution, a ReLU, and a convolution whose output is near ``start`` at the start of training.

    Args:
        kernel_size: of the last convolution, odd; maps keep their size.
    """
    first = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
    last = nn.Conv2d(hidden, out_channels, kernel_size=kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
    nn.init.zeros_(first.bias)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.constant_(last.bias, start)
    return nn.Sequential(first, nn.ReLU(inplace=True), last)


def prior_bias(probability: float) -> float:
    """The bias whose sigmoid is ``probability``."""
    return -math.log((1 - probability) / probability)
