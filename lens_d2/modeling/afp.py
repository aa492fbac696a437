"""The anchor-free proposal network AFP (LENS, Section IV-B).

Shape shorthand in this file:

    N: number of images in the minibatch
    C: channels of the feature map
    H, W: height and width of the feature map
    P: H * W, its pixels in row-major order

A pixel stands for the image position of its centre. "Distances" are those from a pixel to the left, top,
right and bottom border of a box, in units of the feature map's stride.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn

from ..structures.status import BoxStatus
from .branches import output_branch, prior_bias
from .ranks import global_normalizer


def pixel_centers(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """(P, 2) x and y of a feature map's pixel centres, in image pixels."""
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 2)


def pixels_in_region(points: Tensor, boxes: Tensor, ratio: float, stride: int) -> Tensor:
    """Which pixels lie in the central region of which box.

    The region has the box's centre and ``ratio`` times its sides. It holds at least the pixel whose cell the
    centre lies in: at stride 4, the region of a small lesion may fall between the pixels' centres.

    Args:
        points: (P, 2) pixel centres. boxes: (M, 4) XYXY_ABS.

    Returns:
        (P, M) bool
    """
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half_size = (boxes[:, 2:] - boxes[:, :2]) / 2 * ratio
    offset = (points[:, None] - center).abs()
    own_cell = (torch.div(center, stride, rounding_mode="floor") + 0.5) * stride
    return (offset <= half_size).all(dim=2) | (points[:, None] == own_cell).all(dim=2)


def distances_to_boxes(distances: Tensor, points: Tensor, stride: int) -> Tensor:
    """(..., P, 4) distances of pixels to (..., P, 4) XYXY_ABS boxes in image pixels."""
    distances = distances.clamp(min=0) * stride
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


@PROPOSAL_GENERATOR_REGISTRY.register()
class AFP(nn.Module):
    """Anchor-free proposal network: a centerness and a box branch on one feature map (Section IV-B).

    Each branch is two 3x3 convolutions with a ReLU between. The centerness branch learns 1 in the centre
    region B_ctn of a lesion, 0 elsewhere, and nothing in the ignored region B_ign; an uncertain box has no
    B_ctn and is ignored entirely. The box branch learns the distances inside B_ctn alone, by L1.
    """

    @configurable
    def __init__(
        self,
        *,
        in_feature: str,
        in_channels: int,
        stride: int,
        conv_dim: int,
        center_ratio: float = 0.2,
        ignore_ratio: float = 0.5,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        prior_prob: float = 0.01,
        size_loss_weight: float = 0.1,
        hard_negative_weight: float = 1.0,
        pre_nms_topk: tuple[int, int] = (300, 200),
        score_thresh_test: float = 0.0,
    ):
        """
        Args:
            in_feature, in_channels, stride: name, C and stride of the feature map.
            conv_dim: hidden channels of both branches.
            center_ratio, ignore_ratio: r_c and r_i.
            focal_alpha, focal_gamma: of the focal loss; alpha below 0 for no class weights.
            prior_prob: the centerness given at the start of training.
            size_loss_weight: lambda_1 of Eq. 1.
            hard_negative_weight: of a pixel in a hard negative's centre region, which is then background whatever
                else is there (Lesion-Harvester, Eq. 8, for this network); 1: hard negatives are not looked at.
            pre_nms_topk: pixels that become proposals in training and at inference.
            score_thresh_test: centerness below which a pixel gives no proposal at inference.
        """
        super().__init__()
        self.in_feature, self.stride = in_feature, stride
        self.center_ratio, self.ignore_ratio = center_ratio, ignore_ratio
        self.focal_alpha, self.focal_gamma = focal_alpha, focal_gamma
        self.size_loss_weight = size_loss_weight
        self.hard_negative_weight = hard_negative_weight
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}
        self.score_thresh_test = score_thresh_test
        self.centerness = output_branch(in_channels, conv_dim, 1, kernel_size=3, start=prior_bias(prior_prob))
        self.distances = output_branch(in_channels, conv_dim, 4, kernel_size=3, start=1.0)

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        afp = cfg.MODEL.AFP
        shape = input_shape[afp.IN_FEATURE]
        return {
            "in_feature": afp.IN_FEATURE,
            "in_channels": shape.channels,
            "stride": shape.stride,
            "conv_dim": afp.CONV_DIM,
            "center_ratio": afp.CENTER_RATIO,
            "ignore_ratio": afp.IGNORE_RATIO,
            "focal_alpha": afp.FOCAL_ALPHA,
            "focal_gamma": afp.FOCAL_GAMMA,
            "prior_prob": afp.PRIOR_PROB,
            "size_loss_weight": cfg.MODEL.LENS.SIZE_LOSS_WEIGHT,
            "hard_negative_weight": afp.HARD_NEGATIVE_WEIGHT,
            "pre_nms_topk": (afp.PRE_NMS_TOPK_TRAIN, afp.PRE_NMS_TOPK_TEST),
            "score_thresh_test": afp.SCORE_THRESH_TEST,
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
            N Instances with ``proposal_boxes`` and ``objectness_logits``, not yet filtered by NMS; and, where
            ``gt_instances`` are given, "loss_center" and "loss_size".
        """
        feature = features[self.in_feature]
        centerness, distances = self.centerness(feature), self.distances(feature)
        proposals = self.propose(centerness, distances, images.image_sizes)
        losses = {}
        if gt_instances is not None:
            losses = self.losses(*self._per_pixel(centerness, distances), gt_instances)
        return proposals, losses

    def _per_pixel(self, centerness: Tensor, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pixels' (P, 2) centres, (N, P) logits and (N, P, 4) distances from the branches' maps."""
        points = pixel_centers(*centerness.shape[-2:], self.stride, centerness.device)
        return points, centerness.flatten(1), distances.flatten(2).transpose(1, 2)

    @torch.no_grad()
    def propose(
        self, centerness: Tensor, distances: Tensor, image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """Proposals from the branches' maps (N, 1, H, W) and (N, 4, H, W), as :meth:`forward` gives them."""
        return self.predict_proposals(*self._per_pixel(centerness, distances), image_sizes)

    def losses(
        self, points: Tensor, logits: Tensor, distances: Tensor, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Focal loss of centerness and L1 loss of distances, both per pixel of the centre regions.

        Args:
            points: (P, 2). logits: (N, P). distances: (N, P, 4). gt_instances: as for :meth:`forward`.
        """
        targets = [self.label_pixels(points, gt) for gt in gt_instances]
        labels = torch.stack([label for label, _ in targets])
        gt_distances = torch.stack([distance for _, distance in targets])
        weights = torch.ones_like(logits)
        if self.hard_negative_weight != 1:
            suppressed = torch.stack([self.hard_negative_pixels(points, gt) for gt in gt_instances])
            labels = labels.masked_fill(suppressed, 0)
            weights = weights.masked_fill(suppressed, self.hard_negative_weight)
        valid, center = labels >= 0, labels == 1
        num_center = global_normalizer(int(center.sum()), logits.device)
        loss_center = sigmoid_focal_loss(
            logits[valid], labels[valid].float(), self.focal_alpha, self.focal_gamma, reduction="none"
        )
        loss_center = (loss_center * weights[valid]).sum()
        loss_size = F.l1_loss(distances[center], gt_distances[center], reduction="sum")
        return {
            "loss_center": loss_center / num_center,
            "loss_size": loss_size / num_center * self.size_loss_weight,
        }

    @torch.no_grad()
    def label_pixels(self, points: Tensor, gt: Instances) -> tuple[Tensor, Tensor]:
        """Targets of one image.

        Returns:
            (P,) long: 1 in a centre region, -1 in the rest of an ignored region, 0 elsewhere; and (P, 4) the
            distances to the box whose centre region the pixel lies in, the smallest box where several do.
        """
        labels = points.new_zeros(len(points), dtype=torch.long)
        gt_distances = points.new_zeros(len(points), 4)
        known = gt.gt_status != BoxStatus.HARD_NEGATIVE
        boxes, status = gt.gt_boxes.tensor[known], gt.gt_status[known]
        if not len(boxes):
            return labels, gt_distances
        ignored = pixels_in_region(points, boxes, self.ignore_ratio, self.stride)
        labels[ignored.any(dim=1)] = -1
        boxes = boxes[status == BoxStatus.LESION]
        if not len(boxes):
            return labels, gt_distances
        center = pixels_in_region(points, boxes, self.center_ratio, self.stride)
        area = Boxes(boxes).area().expand(len(points), -1).masked_fill(~center, torch.inf)
        labels[center.any(dim=1)] = 1
        box = boxes[area.argmin(dim=1)]
        gt_distances = torch.cat([points - box[:, :2], box[:, 2:] - points], dim=1) / self.stride
        return labels, gt_distances

    def hard_negative_pixels(self, points: Tensor, gt: Instances) -> Tensor:
        """(P,) bool: which pixels lie in a hard negative's centre region."""
        boxes = gt.gt_boxes.tensor[gt.gt_status == BoxStatus.HARD_NEGATIVE]
        return pixels_in_region(points, boxes, self.center_ratio, self.stride).any(dim=1)

    def predict_proposals(
        self, points: Tensor, logits: Tensor, distances: Tensor, image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """The highest-scoring pixels' boxes, clipped to their images; arguments as for :meth:`losses`."""
        topk = min(self.pre_nms_topk[self.training], logits.shape[1])
        logits, index = logits.topk(topk, dim=1)
        distances = distances.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = distances_to_boxes(distances, points[index], self.stride)
        proposals = []
        for box, logit, size in zip(boxes, logits, image_sizes, strict=True):
            proposal = Instances(size, proposal_boxes=Boxes(box), objectness_logits=logit)
            proposal.proposal_boxes.clip(size)
            keep = proposal.proposal_boxes.nonempty()
            if not self.training:
                keep &= logit.sigmoid() >= self.score_thresh_test
            proposals.append(proposal[keep])
        return proposals
