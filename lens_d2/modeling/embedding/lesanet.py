"""Multi-label network of lesions with an embedding, of LesaNet's kind (LENS, Section V-B).

Shape shorthand in this file:

    n: lesions of a batch
    S: slices of a patch, which are the channels of the network's input
    H, W: height and width of a patch
    C: labels
    E: length of the embedding
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import Tensor, nn
from torchvision.models.vgg import VGG16_BN_Weights, cfgs, make_layers
from torchvision.ops import roi_align

from ...data.patches import PatchGrid
from ..pretrained import load_initial_weights
from ..views import IntensityWindow

# VGG-16's convolutions of one stage after another, as multiples of the first one's channels.
VGG16_CHANNELS = [v if v == "M" else v // 64 for v in cfgs["D"]]
STAGES_FROM_BOX = 3


class LesionOutput(NamedTuple):
    """Output for n lesions.

    Attributes:
        embedding: (n, E), of length 1.
        logits: (n, C).
        propagated: (n, C), logits after score propagation.
    """

    embedding: Tensor
    logits: Tensor
    propagated: Tensor


class LesaNet(nn.Module):
    """Labels and embeds lesions.

    A VGG-16 with batch normalisation looks at the patch around a lesion. The outputs of stages 1 to 3 are pooled
    from the lesion's box, those of 4 and 5 from the whole patch; an FC layer for each, concatenated, gives the
    embedding and, beside it, the label scores. Score propagation is a linear layer from all labels' scores to
    all labels' scores, at the start the identity.
    """

    @configurable
    def __init__(
        self,
        *,
        num_labels: int,
        grid: PatchGrid,
        window: IntensityWindow,
        width: int = 64,
        resolution: int = 5,
        fc_dim: int = 256,
        embedding_dim: int = 256,
    ):
        """
        Args:
            num_labels: C.
            grid: of the patches.
            window: from HU to the network's input.
            width: channels of the first stage.
            resolution: bins along y and x to which each stage is pooled.
            fc_dim: width of each stage's FC layer.
            embedding_dim: E.
        """
        super().__init__()
        self.grid, self.window, self.resolution = grid, window, resolution
        self.stages, channels = vgg16_stages(grid.shape[0], width)
        self.stage_fcs = nn.ModuleList(nn.Linear(c * resolution**2, fc_dim) for c in channels)
        features = fc_dim * len(channels)
        self.embedding = nn.Linear(features, embedding_dim)
        self.label_scores = nn.Linear(features, num_labels)
        self.propagation = nn.Linear(num_labels, num_labels)
        nn.init.eye_(self.propagation.weight)
        nn.init.zeros_(self.propagation.bias)

    @classmethod
    def from_config(cls, cfg, num_labels: int):
        """Read ``MODEL.EMBEDDING``."""
        keys = cfg.MODEL.EMBEDDING
        return {
            "num_labels": num_labels,
            "grid": PatchGrid(tuple(keys.PATCH_SIZE), tuple(keys.PATCH_SPACING)),
            "window": IntensityWindow(keys.HU_WINDOW, keys.PIXEL_MEAN, keys.PIXEL_STD),
            "width": keys.WIDTH,
            "resolution": keys.POOLER_RESOLUTION,
            "fc_dim": keys.FC_DIM,
            "embedding_dim": keys.DIM,
        }

    def load_initial_weights(self, source: str) -> None:
        """Start the convolutions from a VGG-16-BN; ``source`` as for :func:`load_initial_weights`."""
        places = [f"{i}.{j}" for i, stage in enumerate(self.stages) for j in range(len(stage))]
        keys = {
            f"features.{number}.{name}": f"{place}.{name}"
            for number, place in enumerate(places)
            for name in self.stages.get_submodule(place).state_dict()
        }
        load_initial_weights(self.stages, source, VGG16_BN_Weights.IMAGENET1K_V1, key_of=keys.get)

    def forward(self, patches: Tensor, boxes: Tensor) -> LesionOutput:
        """Label and embed lesions.

        Args:
            patches: (n, S, H, W) HU.
            boxes: (n, 4) of the lesions, XYXY edges in the patch.
        """
        height, width = patches.shape[-2:]
        whole = boxes.new_tensor([0, 0, width, height]).expand_as(boxes)
        number = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None]
        x, features = self.window(patches), []
        for i, (stage, fc) in enumerate(zip(self.stages, self.stage_fcs, strict=True)):
            x = stage(x)
            regions = torch.cat([number, boxes if i < STAGES_FROM_BOX else whole], dim=1)
            pooled = roi_align(x, regions.to(x.dtype), self.resolution, 0.5**i, sampling_ratio=2, aligned=True)
            features.append(fc(pooled.flatten(1)))
        features = torch.cat(features, dim=1)
        logits = self.label_scores(features)
        return LesionOutput(F.normalize(self.embedding(features), dim=1), logits, self.propagation(logits))


def vgg16_stages(in_channels: int, width: int) -> tuple[nn.ModuleList, list[int]]:
    """Convolutions of torchvision's VGG-16-BN in stages, from one pooling to the next, and each stage's channels.

    Every stage except the first begins with a pooling by 2.
    """
    channels = [v if v == "M" else v * width for v in VGG16_CHANNELS[:-1]]
    layers = make_layers(channels, batch_norm=True)
    layers[0] = nn.Conv2d(in_channels, width, kernel_size=3, padding=1)
    stages, last = [[]], []
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            stages.append([])
        stages[-1].append(layer)
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    for stage in stages:
        last.append([layer for layer in stage if isinstance(layer, nn.Conv2d)][-1].out_channels)
    return nn.ModuleList(nn.Sequential(*stage) for stage in stages), last
