"""ResNet-18's trunk for one channel, at any width: in 2D, and turned 3D (LENS, Sections IV-D and VI-B)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
        """Layers before the blocks, from (n, 1, H, W) to stride 4."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def forward(self, x: Tensor) -> list[Tensor]:
        """From (n, 1, H, W) to the four blocks' outputs, (n, channels[i], H / s, W / s), s = 4, 8, 16, 32."""
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
    """Fit a 2D kernel to another shape; other tensors, and kernels of that shape, are returned unchanged.

    A kernel over colours becomes one over grey values by their sum; a deep one is the 2D one repeated along z,
    divided by the depth (I3D).
    """
    if weight.dim() != 4 or len(shape) < 4:
        return weight
    if shape[1] == 1:
        weight = weight.sum(dim=1, keepdim=True)
    return weight if len(shape) == 4 else weight[:, :, None].expand(-1, -1, shape[2], -1, -1) / shape[2]


class InPlaneConv3d(nn.Conv3d):
    """A convolution that pads with zeros in the slice, and with the outermost slices along z.

    The patch goes on as a volume does beyond its first and last slice, and if all slices are alike, an inflated
    kernel has the output of its 2D original.
    """

    def forward(self, x: Tensor) -> Tensor:
        """From (n, C, D, H, W) to (n, C', D', H', W')."""
        depth, *in_plane = self.padding
        if depth:
            x = F.pad(x, (0, 0, 0, 0, depth, depth), mode="replicate")
        return F.conv3d(x, self.weight, self.bias, self.stride, (0, *in_plane), self.dilation, self.groups)


def turn_3d(module: nn.Module, depth: int, z_stride: int = 1) -> nn.Module:
    """Turn a 2D network into its counterpart for volumes, with its weights.

    k x k convolutions become depth x k x k, k > 1; pooling stays in the slice.

    Args:
        module: changed in place, unless it is a single layer.
        depth: of the kernels.
        z_stride: along z, of the convolutions that have a stride in the slice.
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
    """ResNet-18's trunk for volumes of one channel; its keys are those of the 2D one."""

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
            z_strides: strides along z of the four blocks, used by blocks 2 to 4, which have strides in the slice.
        """
        super().__init__(width)
        for name in ("conv1", "bn1", "maxpool"):
            setattr(self, name, turn_3d(self.get_submodule(name), 1))
        for block, depth, z_stride in zip(self.blocks, depths, z_strides, strict=True):
            turn_3d(block, depth, z_stride)

    def forward(self, x: Tensor) -> list[Tensor]:
        """From (n, 1, D, H, W) to the four blocks' outputs, (n, channels[i], d, H / s, W / s), s = 4, 8, 16, 32.

        d is D, divided by the strides along z.
        """
        return super().forward(x)


def load_resnet18_weights(trunk: ResNet2D, source: str) -> None:
    """Start a trunk, in 2D or 3D, from a ResNet-18; ``source`` as for :func:`load_initial_weights`."""
    load_initial_weights(trunk, source, ResNet18_Weights.IMAGENET1K_V1, fit=fit_kernel)
