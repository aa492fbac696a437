"""The 2.5D DenseNet: a truncated DenseNet whose images of three slices share features along z.

Shape shorthand in this file:

    N: samples of a batch, or slices of a volume at inference
    K: images of a sample (3 for 9 slices), each of 3 neighbouring slices as its channels
    C: channels of the pyramid
    H, W: height and width of the images, multiples of 16
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torchvision.models.densenet import DenseNet

from ..io.errors import DataError
from .adapters import ADAPTERS, AdaptedConv2d

SLICES_PER_IMAGE = 3
NORMS = {
    "BN": lambda module: module,
    "FrozenBN": FrozenBatchNorm2d.convert_frozen_batchnorm,
    "SyncBN": nn.SyncBatchNorm.convert_sync_batchnorm,
}


def shape_of(features: Mapping[str, ShapeSpec], name: str, key: str) -> ShapeSpec:
    """Shape of the feature map that a head reads.

    Args:
        features: by name, as of ``Backbone.output_shape``.
        name: of the map.
        key: of the config, which has the name.

    Raises:
        DataError: the backbone has no map of that name.
    """
    if name not in features:
        raise DataError(key, f"{name!r}; the backbone gives {', '.join(features)}")
    return features[name]


class ContextFusion(nn.Module):
    """3D feature fusion: one 1x1 convolution from all images' channels to the central image's (MULAN).

    At the start of training it passes the central image through, so that pretrained features keep their meaning.
    """

    def __init__(self, num_images: int, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(num_images * channels, channels, kernel_size=1)
        nn.init.normal_(self.conv.weight, std=0.1 / (num_images * channels) ** 0.5)
        nn.init.zeros_(self.conv.bias)
        central = num_images // 2 * channels
        with torch.no_grad():
            self.conv.weight[:, central : central + channels, 0, 0] += torch.eye(channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse K tensors (N, channels, h, w), from the lowest image to the highest, to one."""
        return self.conv(torch.cat(features, dim=1))


class DenseNet25D(Backbone):
    """Truncated 2.5D DenseNet with 3D feature fusion and a feature pyramid (LENS, Section IV-A).

    Each image of three slices runs through the trunk on its own. After transition 2 the images' features are
    fused and take the central image's place before dense block 3; after the top-down pyramid (1x1 laterals,
    nearest upsampling, no smoothing) the stride-4 maps are fused again, and only that map is used.

    Up to the fusions, an image's features depend on its own three slices alone. Inference over a volume computes
    them once, with :class:`~lens_d2.inference.folded_backbone.FoldedDenseNet25D`.

    Attributes:
        domains: experts, among which each forward pass has to name one; () if all datasets share everything, or if
            the adapters tell images apart by themselves.
    """

    @configurable
    def __init__(
        self,
        *,
        num_slices: int,
        growth_rate: int = 32,
        block_config: tuple[int, int, int] = (6, 12, 24),
        init_features: int = 64,
        bn_size: int = 4,
        out_channels: int = 512,
        norm: str = "BN",
        out_feature: str = "p2",
        adapters: str = "",
        domains: tuple[str, ...] = (),
    ):
        """
        Args:
            num_slices: slices of a sample, an odd multiple of 3.
            growth_rate: as in torchvision's DenseNet.
            block_config: layers of the three dense blocks.
            init_features: as in torchvision's DenseNet.
            bn_size: as in torchvision's DenseNet.
            out_channels: C.
            norm: one of ``NORMS``.
            out_feature: name of the output map.
            adapters: name in :data:`lens_d2.modeling.adapters.ADAPTERS`; empty: none.
            domains: names of the experts whose datasets the adapters tell apart.
        """
        super().__init__()
        self.num_images, rest = divmod(num_slices, SLICES_PER_IMAGE)
        if rest or self.num_images % 2 == 0:
            raise ValueError(f"INPUT.NUM_SLICES is {num_slices}: give 3, 9, 15, ...")
        trunk = DenseNet(growth_rate, (*block_config, 0), init_features, bn_size, num_classes=1).features
        self.stem = nn.Sequential(*(trunk.get_submodule(f"{n}0") for n in ("conv", "norm", "relu", "pool")))
        self.block1, self.transition1 = trunk.denseblock1, trunk.transition1
        self.block2, self.transition2 = trunk.denseblock2, trunk.transition2
        self.block3 = trunk.denseblock3

        widths, width = [], init_features
        for layers in block_config:
            width += layers * growth_rate
            widths.append(width)
            width //= 2
        self.laterals = nn.ModuleList(nn.Conv2d(w, out_channels, kernel_size=1) for w in widths)
        for lateral in self.laterals:
            nn.init.kaiming_uniform_(lateral.weight, a=1)
            nn.init.zeros_(lateral.bias)
        fused = self.num_images > 1
        self.fuse_trunk = ContextFusion(self.num_images, widths[1] // 2) if fused else None
        self.fuse_pyramid = ContextFusion(self.num_images, out_channels) if fused else None

        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: out_channels}
        self._out_feature_strides = {out_feature: 4}
        NORMS[norm](self)
        self.after_block = nn.ModuleList(nn.Identity() for _ in block_config)
        self.domains = ADAPTERS.get(adapters)(self, tuple(domains)) if adapters else ()

    @classmethod
    def from_config(cls, cfg, input_shape=None):
        """Read ``MODEL.DENSENET``, ``INPUT.NUM_SLICES`` and ``MODEL.LENS.EXPERTS``."""
        return {
            "num_slices": cfg.INPUT.NUM_SLICES,
            "growth_rate": cfg.MODEL.DENSENET.GROWTH_RATE,
            "block_config": cfg.MODEL.DENSENET.BLOCK_CONFIG,
            "init_features": cfg.MODEL.DENSENET.INIT_FEATURES,
            "bn_size": cfg.MODEL.DENSENET.BN_SIZE,
            "out_channels": cfg.MODEL.DENSENET.OUT_CHANNELS,
            "norm": cfg.MODEL.DENSENET.NORM,
            "adapters": cfg.MODEL.DENSENET.ADAPTERS,
            "domains": cfg.MODEL.LENS.EXPERTS,
        }

    @property
    def size_divisibility(self) -> int:
        """Number that divides the sides of the images."""
        return 16

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of single images, whichever sample they are part of.

        Args:
            images: (n, 3, H, W).

        Returns:
            trunk: (n, *, H/16, W/16), after transition 2.
            fine: (n, C, H/4, W/4), the finer two levels of the pyramid.
        """
        c2 = self.after_block[0](self.block1(self.stem(images)))
        c3 = self.after_block[1](self.block2(self.transition1(c2)))
        fine = self.laterals[0](c2) + F.interpolate(self.laterals[1](c3), scale_factor=2.0, mode="nearest")
        return self.transition2(c3), fine

    def complete(self, trunk: Tensor, fine: Tensor) -> Tensor:
        """Stride-4 maps of images: the pyramid's top level, from dense block 3, added to the finer ones.

        Args:
            trunk: as :meth:`encode` gives it, fused or not.
            fine: as :meth:`encode` gives it.

        Returns:
            (n, C, H/4, W/4)
        """
        top = self.laterals[2](self.after_block[2](self.block3(trunk)))
        return fine + F.interpolate(top, scale_factor=4.0, mode="nearest")

    def forward(self, x: Tensor, domain: str | None = None) -> dict[str, Tensor]:
        """Stride-4 map of a batch of samples.

        Args:
            x: (N, 3 K, H, W), slices in order along z.
            domain: expert whose adapters are applied, one of ``self.domains``; None without adapters.

        Returns:
            {out_feature: (N, C, H/4, W/4)}

        Raises:
            ValueError: ``domain`` is none of ``self.domains``.
        """
        for module in self.modules():
            if isinstance(module, AdaptedConv2d):
                module.domain = domain
        n, _, height, width = x.shape
        trunk, fine = self.encode(x.reshape(n * self.num_images, SLICES_PER_IMAGE, height, width))
        if self.num_images > 1:
            trunks = list(trunk.unflatten(0, (n, self.num_images)).unbind(1))
            trunks[self.num_images // 2] = self.fuse_trunk(trunks)
            trunk = torch.stack(trunks, dim=1).flatten(0, 1)
        maps = self.complete(trunk, fine)
        if self.num_images > 1:
            maps = self.fuse_pyramid(list(maps.unflatten(0, (n, self.num_images)).unbind(1)))
        return {self._out_features[0]: maps}


@BACKBONE_REGISTRY.register()
def build_densenet25d_backbone(cfg, input_shape: ShapeSpec | None = None) -> DenseNet25D:
    """Build the 2.5D DenseNet from ``cfg.MODEL.DENSENET`` and ``cfg.INPUT.NUM_SLICES``."""
    return DenseNet25D(cfg, input_shape)
