"""CenterNet's head: lesions as points (Zhou et al., "Objects as Points"), in Lesion-Harvester's CECN and in LENS.

Shape shorthand in this file:

    N: number of images in the minibatch
    C: channels of the feature map
    H, W: height and width of the feature map
    M: number of lesions

Sizes and offsets are in cells of the feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ..structures.status import BoxStatus
from .branches import output_branch, prior_bias
from .heat_maps import center_cells, gaussian_heat_map, penalty_reduced_focal_loss, with_hard_negatives
from .ranks import global_normalizer


@PROPOSAL_GENERATOR_REGISTRY.register()
class CenterNet(nn.Module):
    """Heat map of lesion centres, and width, height and offset of the lesion at each (Section III-B).

    Each of the three outputs is a 3x3 convolution, a ReLU, and a 1x1 convolution. Proposals are the peaks of the
    heat map. Where hard negatives are suppressed, they are in the heat map with their sign changed (Eq. 8).
    """

    @configurable
    def __init__(
        self,
        *,
        in_feature: str,
        in_channels: int,
        stride: int,
        conv_dim: int,
        min_overlap: float = 0.7,
        min_radius: int = 0,
        alpha: float = 2.0,
        beta: float = 4.0,
        suppress_hard_negatives: bool = True,
        prior_prob: float = 0.1,
        size_loss_weight: float = 0.1,
        offset_loss_weight: float = 1.0,
        topk: tuple[int, int] = (300, 100),
    ):
        """
        Args:
            in_feature, in_channels, stride: name, C and stride of the feature map.
            conv_dim: hidden channels of each output.
            min_overlap, min_radius: of the Gaussians, see :func:`gaussian_heat_map`.
            alpha, beta: of Eq. 6.
            suppress_hard_negatives: whether hard negatives weigh more than other background (Eq. 8).
            prior_prob: the heat map's value at the start of training.
            size_loss_weight, offset_loss_weight: of the L1 losses at the centres.
            topk: peaks that become proposals in training and at inference.
        """
        super().__init__()
        self.in_feature, self.stride = in_feature, stride
        self.min_overlap, self.min_radius = min_overlap, min_radius
        self.alpha, self.beta = alpha, beta
        self.suppress_hard_negatives = suppress_hard_negatives
        self.size_loss_weight, self.offset_loss_weight = size_loss_weight, offset_loss_weight
        self.topk = {True: topk[0], False: topk[1]}
        self.heat_map = output_branch(in_channels, conv_dim, 1, kernel_size=1, start=prior_bias(prior_prob))
        self.sizes = output_branch(in_channels, conv_dim, 2, kernel_size=1, start=2.0)
        self.offsets = output_branch(in_channels, conv_dim, 2, kernel_size=1, start=0.5)

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        keys = cfg.MODEL.CENTERNET
        shape = input_shape[keys.IN_FEATURE]
        return {
            "in_feature": keys.IN_FEATURE,
            "in_channels": shape.channels,
            "stride": shape.stride,
            "conv_dim": keys.CONV_DIM,
            "min_overlap": keys.MIN_OVERLAP,
            "min_radius": keys.MIN_RADIUS,
            "alpha": keys.ALPHA,
            "beta": keys.BETA,
            "suppress_hard_negatives": keys.SUPPRESS_HARD_NEGATIVES,
            "prior_prob": keys.PRIOR_PROB,
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
        """
        Args:
            images: of N images; only their sizes are used.
            features: holds (N, C, H, W) under ``in_feature``.
            gt_instances: N, with ``gt_boxes`` and ``gt_status`` (:class:`BoxStatus`). With them come losses.

        Returns:
            N Instances with ``proposal_boxes`` and ``objectness_logits``, the peaks of the heat map from the
            highest on; and, where ``gt_instances`` are given, "loss_center", "loss_size" and "loss_offset".
        """
        feature = features[self.in_feature]
        logits = self.heat_map(feature)[:, 0]
        sizes, offsets = (branch(feature).permute(0, 2, 3, 1) for branch in (self.sizes, self.offsets))
        losses = {} if gt_instances is None else self.losses(logits, sizes, offsets, gt_instances)
        with torch.no_grad():
            proposals = self.predict_proposals(logits, sizes, offsets, images.image_sizes)
        return proposals, losses

    def losses(
        self, logits: Tensor, sizes: Tensor, offsets: Tensor, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Eq. 6 on the heat map, L1 of sizes and offsets at the lesions' centres, all per lesion of the batch.

        Args:
            logits: (N, H, W). sizes, offsets: (N, H, W, 2). gt_instances: as for :meth:`forward`.
        """
        image_size = tuple(logits.shape[1:])
        loss_center = loss_size = loss_offset = logits.new_zeros(())
        count = 0
        for i, gt in enumerate(gt_instances):
            target, counts = self.target_heat_map(gt, image_size)
            loss_center = loss_center + penalty_reduced_focal_loss(
                logits[i][counts], target[counts], self.alpha, self.beta
            )
            boxes = gt.gt_boxes.tensor[gt.gt_status == BoxStatus.LESION] / self.stride
            count += len(boxes)
            cells = center_cells(boxes, image_size)
            boxes, cells = (x[target[cells[:, 1], cells[:, 0]] == 1] for x in (boxes, cells))
            x, y = cells.unbind(dim=1)
            gt_offsets = (boxes[:, :2] + boxes[:, 2:]) / 2 - cells
            gt_sizes = boxes[:, 2:] - boxes[:, :2]
            loss_size = loss_size + F.l1_loss(sizes[i, y, x], gt_sizes, reduction="sum")
            loss_offset = loss_offset + F.l1_loss(offsets[i, y, x], gt_offsets, reduction="sum")
        count = global_normalizer(count, logits.device)
        return {
            "loss_center": loss_center / count,
            "loss_size": loss_size / count * self.size_loss_weight,
            "loss_offset": loss_offset / count * self.offset_loss_weight,
        }

    @torch.no_grad()
    def target_heat_map(self, gt: Instances, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Heat map of one image, and which of its pixels count.

        Returns:
            (H, W) in [-1, 1], Eq. 8; and (H, W) bool: False inside uncertain boxes, but for lesions' centres and
            hard negatives.
        """
        boxes = gt.gt_boxes.tensor / self.stride
        target = gaussian_heat_map(
            boxes[gt.gt_status == BoxStatus.LESION], size, self.min_overlap, self.min_radius
        )
        if self.suppress_hard_negatives:
            negatives = boxes[gt.gt_status == BoxStatus.HARD_NEGATIVE]
            target = with_hard_negatives(
                target, gaussian_heat_map(negatives, size, self.min_overlap, self.min_radius)
            )
        uncertain = boxes[gt.gt_status == BoxStatus.UNCERTAIN, :, None]
        x, y = (torch.arange(length, device=boxes.device) + 0.5 for length in reversed(size))
        in_x = (x >= uncertain[:, 0]) & (x <= uncertain[:, 2])
        in_y = (y >= uncertain[:, 1]) & (y <= uncertain[:, 3])
        ignored = (in_y[:, :, None] & in_x[:, None, :]).any(dim=0)
        return target, ~ignored | (target == 1) | (target < 0)

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
        proposals = []
        for i, image_size in enumerate(image_sizes):
            chosen = index[i][~torch.isneginf(values[i])]
            cells = torch.stack([chosen % width, chosen // width], dim=1)
            centers = (cells + offsets[i].reshape(-1, 2)[chosen]) * self.stride
            half = sizes[i].reshape(-1, 2)[chosen].clamp(min=0) / 2 * self.stride
            boxes = Boxes(torch.cat([centers - half, centers + half], dim=1))
            proposal = Instances(image_size, proposal_boxes=boxes, objectness_logits=values[i][: len(chosen)])
            proposal.proposal_boxes.clip(image_size)
            proposals.append(proposal[proposal.proposal_boxes.nonempty()])
        return proposals
