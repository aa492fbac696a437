"""CenterNet's head: lesions as points (Zhou et al., "Objects as Points"), in Lesion-Harvester's CECN and in LENS.

Shape shorthand in this file:

    N: number of images in the minibatch
    C: channels of the feature map
    H, W: height and width of the feature map

Sizes and offsets are in cells of the feature map.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ..structures.status import BoxStatus
from .backbone import shape_of
from .heatmaps import HeatmapLabeler, OutputBranch, center_cells, penalty_reduced_focal_loss, prior_bias
from .selection import make_proposals
from .supervision import global_normalizer, log_counts, of_status


@PROPOSAL_GENERATOR_REGISTRY.register()
class CenterNet(nn.Module):
    """Heatmap of lesion centres, and width, height and offset of the lesion at each (Section III-B).

    Proposals are the peaks of the heatmap.
    """

    @configurable
    def __init__(
        self,
        *,
        in_feature: str,
        stride: int,
        heatmap: nn.Module,
        sizes: nn.Module,
        offsets: nn.Module,
        label_assigner: HeatmapLabeler,
        center_loss: Callable[[Tensor, Tensor], Tensor],
        size_loss_weight: float = 0.1,
        offset_loss_weight: float = 1.0,
        topk: tuple[int, int] = (300, 100),
    ):
        """
        Args:
            in_feature: name of the feature map.
            stride: of the feature map.
            heatmap: (N, C, H, W) to (N, 1, H, W) logits, usually an :class:`OutputBranch`.
            sizes: (N, C, H, W) to (N, 2, H, W) widths and heights.
            offsets: (N, C, H, W) to (N, 2, H, W), from a pixel's upper left corner to the centre.
            label_assigner: gives the target heatmaps.
            center_loss: of (n,) logits and (n,) targets in [-1, 1], the sum.
            size_loss_weight: of the L1 loss of sizes at the centres.
            offset_loss_weight: of the L1 loss of offsets at the centres.
            topk: peaks that become proposals in training and at inference.
        """
        super().__init__()
        self.in_feature, self.stride = in_feature, stride
        self.heat_map = heatmap  # the name that checkpoints have
        self.sizes, self.offsets = sizes, offsets
        self.label_assigner, self.center_loss = label_assigner, center_loss
        self.size_loss_weight, self.offset_loss_weight = size_loss_weight, offset_loss_weight
        self.topk = {True: topk[0], False: topk[1]}

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        """Read ``MODEL.CENTERNET``."""
        keys = cfg.MODEL.CENTERNET
        shape = shape_of(input_shape, keys.IN_FEATURE, "MODEL.CENTERNET.IN_FEATURE")
        starts = {"heatmap": (1, prior_bias(keys.PRIOR_PROB)), "sizes": (2, 2.0), "offsets": (2, 0.5)}
        branches = {
            name: OutputBranch(shape.channels, keys.CONV_DIM, channels, kernel_size=1, start=start)
            for name, (channels, start) in starts.items()
        }
        return {
            "in_feature": keys.IN_FEATURE,
            "stride": shape.stride,
            **branches,
            "label_assigner": HeatmapLabeler(keys.MIN_OVERLAP, keys.MIN_RADIUS, keys.SUPPRESS_HARD_NEGATIVES),
            "center_loss": partial(penalty_reduced_focal_loss, alpha=keys.ALPHA, beta=keys.BETA),
            "size_loss_weight": cfg.MODEL.LENS.SIZE_LOSS_WEIGHT,
            "offset_loss_weight": keys.OFFSET_LOSS_WEIGHT,
            "topk": (keys.TOPK_TRAIN, keys.TOPK_TEST),
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose boxes, and learn from the true ones if they are given.

        Args:
            images: of N images; only their sizes are used.
            features: holds (N, C, H, W) under ``in_feature``.
            gt_instances: N, with ``gt_boxes`` and, unless all are lesions, ``gt_status`` (:class:`BoxStatus`).

        Returns:
            proposals: N Instances with ``proposal_boxes`` and ``objectness_logits``, the peaks of the heatmap from
                the highest on.
            losses: with ``gt_instances``, "loss_centernet_center", "loss_centernet_size" and
                "loss_centernet_offset".
        """
        feature = features[self.in_feature]
        logits = self.heat_map(feature)[:, 0].float()
        sizes, offsets = (branch(feature).permute(0, 2, 3, 1).float() for branch in (self.sizes, self.offsets))
        losses = {} if gt_instances is None else self.losses(logits, sizes, offsets, gt_instances)
        with torch.no_grad():
            proposals = self.predict_proposals(logits, sizes, offsets, images.image_sizes)
        return proposals, losses

    def losses(
        self, logits: Tensor, sizes: Tensor, offsets: Tensor, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Eq. 6 on the heatmap, L1 of sizes and offsets at the lesions' centres, all per lesion of the batch.

        Args:
            logits: (N, H, W).
            sizes: (N, H, W, 2).
            offsets: (N, H, W, 2).
            gt_instances: as for :meth:`forward`.
        """
        image_size = tuple(logits.shape[1:])
        targets = [self.label_assigner(gt, image_size, self.stride) for gt in gt_instances]
        targets, counts = (torch.stack(target) for target in zip(*targets, strict=True))
        log_counts("centernet", targets == 1, counts & (targets != 1))
        loss_center = loss_size = loss_offset = logits.new_zeros(())
        count = 0
        for i, gt in enumerate(gt_instances):
            loss_center = loss_center + self.center_loss(logits[i][counts[i]], targets[i][counts[i]])
            boxes = of_status(gt, BoxStatus.LESION).gt_boxes.tensor / self.stride
            count += len(boxes)
            cells = center_cells(boxes, image_size)
            boxes, cells = (x[targets[i, cells[:, 1], cells[:, 0]] == 1] for x in (boxes, cells))
            x, y = cells.unbind(dim=1)
            gt_offsets = (boxes[:, :2] + boxes[:, 2:]) / 2 - cells
            gt_sizes = boxes[:, 2:] - boxes[:, :2]
            loss_size = loss_size + F.l1_loss(sizes[i, y, x], gt_sizes, reduction="sum")
            loss_offset = loss_offset + F.l1_loss(offsets[i, y, x], gt_offsets, reduction="sum")
        count = global_normalizer(count, logits.device)
        return {
            "loss_centernet_center": loss_center / count,
            "loss_centernet_size": loss_size / count * self.size_loss_weight,
            "loss_centernet_offset": loss_offset / count * self.offset_loss_weight,
        }

    def predict_proposals(
        self, logits: Tensor, sizes: Tensor, offsets: Tensor, image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """The boxes at the highest peaks, clipped to their images; arguments as for :meth:`losses`.

        A peak is a pixel that none of its eight neighbours exceeds.
        """
        width = logits.shape[2]
        is_peak = F.max_pool2d(logits[:, None], kernel_size=3, stride=1, padding=1)[:, 0] == logits
        peaks = logits.masked_fill(~is_peak, -torch.inf).flatten(1)
        values, index = peaks.topk(min(self.topk[self.training], peaks.shape[1]), dim=1)
        cells = torch.stack([index % width, index // width], dim=2)
        offsets, sizes = (x.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 2)) for x in (offsets, sizes))
        centers, half = (cells + offsets) * self.stride, sizes.clamp(min=0) / 2 * self.stride
        boxes = torch.cat([centers - half, centers + half], dim=2)
        return make_proposals(boxes, values, image_sizes, ~torch.isneginf(values))
