"""False-positive reduction network FPR, in 3D (LENS, Section IV-D)."""

from __future__ import annotations

import torch
from detectron2.config import configurable
from torch import Tensor, nn

from ...data.patches import PatchGrid
from ..views import IntensityWindow, roi_align3d
from .build import CLASSIFIER_REGISTRY
from .resnet import ResNet3D, load_resnet18_weights


@CLASSIFIER_REGISTRY.register()
class FPR3D(nn.Module):
    """Classifier of detections into lesions and false positives.

    A 3D ResNet-18 looks at the patch around the detection's centre. The outputs of blocks 1 to 3 are pooled from
    the detection's 3D box, that of block 4 from the whole patch; each goes through an FC layer, and all together
    give one logit.
    """

    @configurable
    def __init__(
        self,
        *,
        grid: PatchGrid,
        window: IntensityWindow,
        trunk: ResNet3D,
        resolution: tuple[int, int, int] = (3, 3, 3),
        fc_dim: int = 256,
    ):
        """
        Args:
            grid: of the patches.
            window: from HU to the trunk's input.
            trunk: gives the four blocks' outputs.
            resolution: bins along z, y, x to which each block is pooled.
            fc_dim: width of each block's FC layer.
        """
        super().__init__()
        self.grid, self.window, self.trunk = grid, window, trunk
        self.resolution = tuple(resolution)
        bins = resolution[0] * resolution[1] * resolution[2]
        self.block_fcs = nn.ModuleList(nn.Linear(channels * bins, fc_dim) for channels in trunk.channels)
        self.score = nn.Linear(len(trunk.channels) * fc_dim, 1)

    @classmethod
    def from_config(cls, cfg):
        """Read the keys of a classifier, as ``MODEL.FPR``."""
        return {
            "grid": PatchGrid(tuple(cfg.PATCH_SIZE), tuple(cfg.PATCH_SPACING)),
            "window": IntensityWindow(cfg.HU_WINDOW, cfg.PIXEL_MEAN, cfg.PIXEL_STD),
            "trunk": ResNet3D(cfg.WIDTH, cfg.KERNEL_DEPTHS, cfg.Z_STRIDES),
            "resolution": cfg.POOLER_RESOLUTION,
            "fc_dim": cfg.FC_DIM,
        }

    def load_initial_weights(self, source: str) -> None:
        """Start the trunk from a ResNet-18, inflated; see :func:`load_resnet18_weights`."""
        load_resnet18_weights(self.trunk, source)

    def forward(self, patches: Tensor, boxes: Tensor) -> Tensor:
        """Classify detections.

        Args:
            patches: (n, 1, D, H, W) HU.
            boxes: (n, 6) of the detections, in patch coordinates.

        Returns:
            (n,) logits
        """
        shape = patches.shape[2:]
        depth, height, width = shape
        whole = boxes.new_tensor([0, 0, 0, width, height, depth]).expand_as(boxes)
        outputs = self.trunk(self.window(patches))
        pooled = []
        for fc, features, region in zip(self.block_fcs, outputs, [boxes, boxes, boxes, whole], strict=True):
            pooled.append(fc(roi_align3d(features, region, shape, self.resolution).flatten(1)).relu())
        return self.score(torch.cat(pooled, dim=1))[:, 0]
