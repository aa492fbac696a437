"""ResNet-18 turned 3D (LENS, Section IV-D and VI-B)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resnet2d import ResNet2D, fit_kernel


class InPlaneConv3d(nn.Conv3d):
    """A convolution that pads with zeros in the slice, and with the outermost slices along z.

    The volume goes on beyond the patch as it does beyond the first and last slice of a scan; and where all slices
    are alike, an inflated kernel gives what its 2D original gives.
    """

    def forward(self, x: Tensor) -> Tensor:
        depth, *in_plane = self.padding
        if depth:
            x = F.pad(x, (0, 0, 0, 0, depth, depth), mode="replicate")
        return F.conv3d(x, self.weight, self.bias, self.stride, (0, *in_plane), self.dilation, self.groups)


def turn_3d(module: nn.Module, depth: int, z_stride: int = 1) -> nn.Module:
    """A 2D network's counterpart for volumes, built from its own weights.

    k x k convolutions become depth x k x k, k > 1; pooling stays in the slice. Where a convolution has a stride,
    it has ``z_stride`` along z.
    """
    if isinstance(module, nn.Conv2d):
        kernel, padding = module.kernel_size, module.padding
        deep = depth if kernel[0] > 1 else 1
        conv = InPlaneConv3d(
            module.in_channels,
            module.out_channels,
            (deep, *kernel),
            stride=(z_stride if max(module.stride) > 1 else 1, *module.stride),
            padding=(deep // 2, *padding),
            bias=module.bias is not None,
        )
        with torch.no_grad():
            conv.weight.copy_(fit_kernel(module.weight, conv.weight.shape))
        return conv
    if isinstance(module, nn.BatchNorm2d):
        norm = nn.BatchNorm3d(module.num_features, module.eps, module.momentum)
        norm.load_state_dict(module.state_dict())
        return norm
    if isinstance(module, nn.MaxPool2d):
        return nn.MaxPool3d((1, *[module.kernel_size] * 2), (1, *[module.stride] * 2), (0, *[module.padding] * 2))
    for name, child in module.named_children():
        setattr(module, name, turn_3d(child, depth, z_stride))
    return module


class ResNet3D(ResNet2D):
    """The trunk of torchvision's ResNet-18 for volumes of one channel; its keys are those of the 2D one."""

    def __init__(
        self,
        width: int = 64,
        depths: tuple[int, int, int, int] = (1, 1, 1, 3),
        z_strides: tuple[int, int, int, int] = (1, 1, 1, 1),
    ):
        """
        Args:
            width: channels of the first block.
            depths: extent along z of the k x k kernels in the four blocks.
            z_strides: strides along z of blocks 2 to 4, where they have strides in the slice; block 1 has none.
        """
        super().__init__(width)
        for name in ("conv1", "bn1", "maxpool"):
            setattr(self, name, turn_3d(self.get_submodule(name), 1))
        for block, depth, z_stride in zip(self.blocks, depths, z_strides, strict=True):
            turn_3d(block, depth, z_stride)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, 1, D, H, W) -> outputs of the four blocks, (n, channels[i], d, H / s, W / s), s = 4, 8, 16, 32.

        d is the depth D where no block has a stride along z.
        """
        return super().forward(x)
