"""Global-local classifiers of lesion proposals (Lesion-Harvester, Section III-C, Tables III and V)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...data.patches import PatchGrid
from ..views import CORONAL, SAGITTAL, TRANSVERSE, VOLUME, IntensityWindow, PlaneView, VolumeView
from .build import CLASSIFIER_REGISTRY
from .resnet import ResNet2D, ResNet3D, load_resnet18_weights

PATCH, BOX = "patch", "box"
THREE_PLANES = (TRANSVERSE, SAGITTAL, CORONAL)


class RegionEncoder(nn.Module):
    """Features of one view's regions: the whole patch ("global") and the proposal's box ("local").

    The first blocks of a ResNet-18 see the patch. Their output, whole or ROI-pooled from the box, goes through the
    remaining blocks, of which each region has its own, and is averaged. So the features of both have the depth and
    the pretrained weights of a whole ResNet-18, and the box is pooled while the map is fine enough for a lesion.
    The paper says "ROI pooling" without naming a layer.
    """

    def __init__(
        self,
        view: PlaneView | VolumeView,
        trunk: ResNet2D,
        regions: Sequence[str],
        pool_after: int,
        resolution: tuple[int, int, int],
    ):
        """
        Args:
            view: the volume or a plane of a patch.
            trunk: a ResNet3D for the volume, a ResNet2D for a plane.
            regions: of PATCH and BOX.
            pool_after: blocks that see the whole patch.
            resolution: bins along z, y, x of the ROI pooling.
        """
        super().__init__()
        self.view, self.trunk, self.regions = view, trunk, tuple(regions)
        self.pool_after, self.resolution = pool_after, tuple(resolution)
        # The first region's last blocks are the trunk's own.
        self.tails = nn.ModuleList(copy.deepcopy(self._tail()) for _ in self.regions[1:])
        self.dim = len(self.regions) * trunk.channels[-1]

    def _tail(self) -> nn.Sequential:
        return nn.Sequential(*self.trunk.blocks[self.pool_after :])

    def load_initial_weights(self, source: str) -> None:
        """Start all blocks from a ResNet-18; see :func:`load_resnet18_weights`."""
        load_resnet18_weights(self.trunk, source)
        for tail in self.tails:
            tail.load_state_dict(self._tail().state_dict())

    def forward(self, patches: Tensor, boxes: Tensor, window: nn.Module) -> Tensor:
        """From (n, 1, D, H, W) HU and (n, 6) boxes in patch coordinates to (n, dim)."""
        seen = self.view(patches, boxes)
        features = self.trunk.stem(window(seen.image))
        for block in self.trunk.blocks[: self.pool_after]:
            features = block(features)
        outputs = []
        for region, tail in zip(self.regions, [self._tail(), *self.tails], strict=True):
            inside = features if region == PATCH else self.view.pool(features, seen, self.resolution)
            outputs.append(tail(inside).flatten(2).mean(dim=2))
        return torch.cat(outputs, dim=1)


class GlobalLocalClassifier(nn.Module):
    """Classifier of proposals: the features of all views and regions side by side, an FC layer, one logit."""

    @configurable
    def __init__(
        self,
        *,
        grid: PatchGrid,
        window: IntensityWindow,
        encoders: Sequence[RegionEncoder],
        fc_dim: int = 256,
    ):
        """
        Args:
            grid: of the patches.
            window: from HU to the trunks' input.
            encoders: one for each view, each with weights of its own.
            fc_dim: width of the FC layer.
        """
        super().__init__()
        self.grid, self.window = grid, window
        self.encoders = nn.ModuleList(encoders)
        self.fc = nn.Linear(sum(encoder.dim for encoder in encoders), fc_dim)
        self.score = nn.Linear(fc_dim, 1)

    @classmethod
    def from_config(cls, cfg: CfgNode, views: Sequence[PlaneView | VolumeView], regions: Sequence[str]):
        """Read the keys of a classifier, as ``MODEL.LPC``."""

        def trunk(view):
            volume = view is VOLUME
            return ResNet3D(cfg.WIDTH, cfg.KERNEL_DEPTHS, cfg.Z_STRIDES) if volume else ResNet2D(cfg.WIDTH)

        return {
            "grid": PatchGrid(tuple(cfg.PATCH_SIZE), tuple(cfg.PATCH_SPACING)),
            "window": IntensityWindow(cfg.HU_WINDOW, cfg.PIXEL_MEAN, cfg.PIXEL_STD),
            "encoders": [
                RegionEncoder(view, trunk(view), regions, cfg.POOL_AFTER, cfg.POOLER_RESOLUTION) for view in views
            ],
            "fc_dim": cfg.FC_DIM,
        }

    def load_initial_weights(self, source: str) -> None:
        """Start every trunk from a ResNet-18; see :func:`load_resnet18_weights`."""
        for encoder in self.encoders:
            encoder.load_initial_weights(source)

    def forward(self, patches: Tensor, boxes: Tensor) -> Tensor:
        """Classify proposals.

        Args:
            patches: (n, 1, D, H, W) HU.
            boxes: (n, 6) of the proposals, in patch coordinates.

        Returns:
            (n,) logits
        """
        features = [encoder(patches, boxes, self.window) for encoder in self.encoders]
        return self.score(self.fc(torch.cat(features, dim=1)).relu())[:, 0]


@CLASSIFIER_REGISTRY.register()
def GLC_MV(keys: CfgNode) -> GlobalLocalClassifier:
    """Global and local features of the transverse, the sagittal and the coronal plane."""
    return GlobalLocalClassifier(keys, views=THREE_PLANES, regions=(PATCH, BOX))


@CLASSIFIER_REGISTRY.register()
def GLC(keys: CfgNode) -> GlobalLocalClassifier:
    """Global and local features of the transverse plane alone (Fig. 8b)."""
    return GlobalLocalClassifier(keys, views=(TRANSVERSE,), regions=(PATCH, BOX))


@CLASSIFIER_REGISTRY.register()
def GLC_3D(keys: CfgNode) -> GlobalLocalClassifier:
    """Global and local features of the volume (Fig. 13)."""
    return GlobalLocalClassifier(keys, views=(VOLUME,), regions=(PATCH, BOX))


@CLASSIFIER_REGISTRY.register()
def ResNet_MV(keys: CfgNode) -> GlobalLocalClassifier:
    """Features of one region in three planes: RESNET_REGION, in the paper the box of a patch of scale 4."""
    return GlobalLocalClassifier(keys, views=THREE_PLANES, regions=(keys.RESNET_REGION,))


@CLASSIFIER_REGISTRY.register()
def ResNet_3D(keys: CfgNode) -> GlobalLocalClassifier:
    """Features of one region in the volume: RESNET_REGION, "patch" with four PATCH_SIZEs, or "box" (Table V)."""
    return GlobalLocalClassifier(keys, views=(VOLUME,), regions=(keys.RESNET_REGION,))
