"""The 2.5D DenseNet for inference over a volume: the same function, arranged for the least work.

Up to the fusions, the features of an image of three slices depend on these slices alone. They are computed once
per image (:meth:`FoldedDenseNet25D.encode`) and not once for each of the samples that the image is part of
(:meth:`FoldedDenseNet25D.decode`). Besides:

- a batch norm that follows a convolution is folded into its weights; one that comes before its ReLU is one
  multiplication and addition;
- 1x1 convolutions are matrix products over all pixels;
- the layers of a dense block write their features side by side into one tensor instead of copying all earlier
  ones;
- transitions average before their 1x1 convolution, not after it;
- laterals, upsampling and the second fusion are linear, so the laterals are multiplied into the fusion, which
  then works at each level's own resolution;
- residual adapters of a dataset are added to the convolutions beside which they stand.

Under autocast, features have its type and weights are cast where they are used.

Shape shorthand as in :mod:`lens_d2.modeling.backbone`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modeling.adapters import AdaptedConv2d

Parts = tuple[Tensor, ...]


class FoldedDenseNet25D:
    """A :class:`DenseNet25D` with its weights as they are at construction; later changes may not take effect."""

    def __init__(self, backbone: nn.Module, domain: str | None = None):
        """
        Args:
            backbone: in evaluation mode.
            domain: one of its ``domains``, if it has any.

        Raises:
            ValueError: ``domain`` is none of them.
        """
        self.num_images, (self.name,) = backbone.num_images, backbone.output_shape()
        self.stem = fold(backbone.stem[0], backbone.stem[1])
        self.block1, self.block2, self.block3 = (
            FoldedBlock(block, domain) for block in (backbone.block1, backbone.block2, backbone.block3)
        )
        self.transition1, self.transition2 = (
            FoldedTransition(t) for t in (backbone.transition1, backbone.transition2)
        )
        self.after_block, self.fuse_trunk = backbone.after_block, backbone.fuse_trunk
        self.levels, self.bias = fuse_laterals(backbone)

    def encode(self, images: Tensor) -> Parts:
        """Features of single images, whichever sample they are part of.

        Args:
            images: (n, 3, H, W).

        Returns:
            (n, *, h, w) each: the trunk after transition 2, and the outputs of dense blocks 1, 2 and 3.
        """
        weight, bias = self.stem
        x = F.conv2d(images.contiguous(memory_format=torch.channels_last), weight, bias, stride=2, padding=3)
        c2 = self.after_block[0](self.block1(F.max_pool2d(x.relu_(), kernel_size=3, stride=2, padding=1)))
        c3 = self.after_block[1](self.block2(self.transition1(c2)))
        trunk = self.transition2(c3)
        return trunk, c2, c3, self.after_block[2](self.block3(trunk))

    def decode(self, images: Sequence[Parts]) -> dict[str, Tensor]:
        """The stride-4 maps of N samples from their K images' parts, from the lowest image to the highest."""
        trunks, *levels = ([parts[i] for parts in images] for i in range(4))
        if self.num_images > 1:
            levels[2][self.num_images // 2] = self.after_block[2](self.block3(self.fuse_trunk(trunks)))
        fine, middle, coarse = (weighted_sum(*level) for level in zip(levels, self.levels, strict=True))
        add_upsampled(middle, coarse)
        add_upsampled(fine, middle)
        return {self.name: fine.add_(self.bias)}


class FoldedBlock:
    """A dense block."""

    def __init__(self, block: nn.ModuleDict, domain: str | None):
        self.layers = [
            (*scale_and_shift(layer.norm1), *fold(layer.conv1, layer.norm2), adapted_weight(layer.conv2, domain))
            for layer in block.values()
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """(n, C, h, w) to (n, C + layers * growth rate, h, w)."""
        count, width = x.shape[:2]
        growth = self.layers[0][-1].shape[0]
        shape = (count, width + growth * len(self.layers), *x.shape[2:])
        features = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        features[:, :width] = x
        for scale, shift, weight, bias, last in self.layers:
            x = torch.addcmul(shift.to(x.dtype), features[:, :width], scale.to(x.dtype)).relu_()
            x = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).relu_().permute(0, 3, 1, 2)
            features[:, width : width + growth] = F.conv2d(x, last, padding=1)
            width += growth
        return features


class FoldedTransition:
    """A transition between dense blocks."""

    def __init__(self, transition: nn.Module):
        self.scale, self.shift = scale_and_shift(transition.norm)
        self.weight = transition.conv.weight

    def __call__(self, x: Tensor) -> Tensor:
        """(n, C, h, w) to (n, C / 2, h / 2, w / 2)."""
        x = torch.addcmul(self.shift.to(x.dtype), x, self.scale.to(x.dtype)).relu_()
        return F.conv2d(F.avg_pool2d(x, kernel_size=2), self.weight)


def adapted_weight(conv: nn.Conv2d, domain: str | None) -> Tensor:
    """Weight of a convolution, with a dataset's adapter added if it has adapters."""
    if not isinstance(conv, AdaptedConv2d):
        return conv.weight
    return conv.weight_of(domain).contiguous(memory_format=torch.channels_last)


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """(C, 1, 1) each: factor and summand of a batch norm in evaluation."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    return scale[:, None, None], shift[:, None, None]


def fold(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution and the batch norm after it."""
    scale, shift = scale_and_shift(norm)
    return (conv.weight * scale[..., None]).contiguous(memory_format=torch.channels_last), shift.flatten()


def fuse_laterals(backbone: nn.Module) -> tuple[list[list[Tensor]], Tensor]:
    """Multiply the laterals into the pyramid's fusion.

    Returns:
        For each level K weights (C, its channels), and the bias (C, 1, 1).
    """
    laterals = [lateral.weight.flatten(1).double() for lateral in backbone.laterals]
    bias = sum(lateral.bias.double() for lateral in backbone.laterals)
    if backbone.fuse_pyramid is None:
        weights = [[lateral] for lateral in laterals]
    else:
        conv = backbone.fuse_pyramid.conv
        roles = conv.weight.flatten(1).double().chunk(backbone.num_images, dim=1)
        weights = [[role @ lateral for role in roles] for lateral in laterals]
        bias = conv.bias + sum(role @ bias for role in roles)
    dtype = backbone.laterals[0].weight.dtype
    return [[weight.to(dtype) for weight in level] for level in weights], bias.to(dtype)[:, None, None]


def weighted_sum(images: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Sum of 1x1 convolutions of K tensors (n, *, h, w), each by its own (C, *) weights."""
    pixels = [image.permute(0, 2, 3, 1) for image in images]
    total = F.linear(pixels[0], weights[0])
    for own, weight in zip(pixels[1:], weights[1:], strict=True):
        total.flatten(0, 2).addmm_(own.flatten(0, 2), weight.t().to(total.dtype))
    return total.permute(0, 3, 1, 2)


def add_upsampled(fine: Tensor, coarse: Tensor) -> None:
    """Add (n, C, h, w) to (n, C, 2h, 2w) in place, each pixel to four (nearest upsampling)."""
    height, width = coarse.shape[-2:]
    cells = fine.unflatten(3, (width, 2)).unflatten(2, (height, 2))  # (n, C, h, 2, w, 2)
    cells += coarse[:, :, :, None, :, None]
