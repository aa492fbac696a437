"""Anchor-free proposal network AFP (LENS, Section IV-B).

Shape shorthand in this file:

    N: number of images in the minibatch
    C: channels of the feature map
    H, W: height and width of the feature map
    P: H * W, its pixels in row-major order
    M: number of boxes in an image

A pixel stands for the image position of its centre. "Distances" are those from a pixel to the left, top,
right and bottom border of a box, in units of the feature map's stride.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn

from ..structures.status import BoxStatus
from .backbone import shape_of
from .heatmaps import OutputBranch, prior_bias
from .missing_labels import PartialLabels
from .selection import make_proposals
from .supervision import global_normalizer, log_counts, of_status, weights_of

# A loss of predictions and targets.
Loss = Callable[[Tensor, Tensor], Tensor]


def pixel_centers(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """(P, 2) x and y of a feature map's pixel centres, in image pixels."""
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 2)


def pixels_in_region(points: Tensor, boxes: Tensor, ratio: float, stride: int) -> Tensor:
    """Find the pixels in the central region of each box.

    The region has the box's centre and ``ratio`` times its sides. It holds at least the pixel whose cell the
    centre lies in: at stride 4, the region of a small lesion may fall between the pixels' centres.

    Args:
        points: (P, 2) pixel centres.
        boxes: (M, 4) XYXY_ABS.
        ratio: in (0, 1].
        stride: of the feature map.

    Returns:
        (P, M) bool
    """
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half_size = (boxes[:, 2:] - boxes[:, :2]) / 2 * ratio
    offset = (points[:, None] - center).abs()
    own_cell = (torch.div(center, stride, rounding_mode="floor") + 0.5) * stride
    return (offset <= half_size).all(dim=2) | (points[:, None] == own_cell).all(dim=2)


def distances_to_boxes(distances: Tensor, points: Tensor, stride: int) -> Tensor:
    """Convert (..., P, 4) distances of pixels to (..., P, 4) XYXY_ABS boxes in image pixels."""
    distances = distances.clamp(min=0) * stride
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


class CenterRegionLabeler:
    """Assigns the pixels of a feature map to the boxes whose central regions they lie in.

    The centre region B_ctn of a lesion is positive; outside the ignored regions B_ign of all boxes, pixels are
    negative. An uncertain box has no B_ctn: all of its B_ign is ignored.
    """

    def __init__(self, center_ratio: float = 0.2, ignore_ratio: float = 0.5, hard_negative_weight: float = 1.0):
        """
        Args:
            center_ratio: r_c.
            ignore_ratio: r_i.
            hard_negative_weight: of a pixel in a hard negative's centre region, which is background even inside
                another box (Lesion-Harvester, Eq. 8, for this network); 1: hard negatives make no difference.
        """
        self.center_ratio, self.ignore_ratio = center_ratio, ignore_ratio
        self.hard_negative_weight = hard_negative_weight

    @torch.no_grad()
    def __call__(self, points: Tensor, stride: int, gt: Instances) -> tuple[Tensor, Tensor, Tensor]:
        """Targets of one image.

        Args:
            points: (P, 2) pixel centres.
            stride: of the feature map.
            gt: with ``gt_boxes`` and, unless all are lesions, ``gt_status`` (:class:`BoxStatus`); a lesion's
                ``gt_weight``, 1 without it, is that of its positive pixels.

        Returns:
            labels: (P,) long, 1 positive, 0 negative, -1 ignored.
            weights: (P,) of the pixels' centerness.
            distances: (P, 4) to the box whose centre region the pixel lies in, the smallest one of several.
        """
        labels, weights = points.new_zeros(len(points), dtype=torch.long), points.new_ones(len(points))
        distances = points.new_zeros(len(points), 4)
        lesions, uncertain = (
            of_status(gt, status).gt_boxes.tensor for status in (BoxStatus.LESION, BoxStatus.UNCERTAIN)
        )
        ignored = pixels_in_region(points, torch.cat([lesions, uncertain]), self.ignore_ratio, stride)
        labels[ignored.any(dim=1)] = -1
        if len(lesions):
            center = pixels_in_region(points, lesions, self.center_ratio, stride)
            labels[center.any(dim=1)] = 1
            area = Boxes(lesions).area().expand(len(points), -1).masked_fill(~center, torch.inf)
            owner = area.argmin(dim=1)
            box, weight = lesions[owner], weights_of(of_status(gt, BoxStatus.LESION), points.device)[owner]
            weights = weights.where(labels != 1, weight)
            distances = torch.cat([points - box[:, :2], box[:, 2:] - points], dim=1) / stride
        if self.hard_negative_weight != 1:
            suppressed = self.on_hard_negative(points, stride, gt)
            labels[suppressed], weights[suppressed] = 0, self.hard_negative_weight
        return labels, weights, distances

    @torch.no_grad()
    def on_hard_negative(self, points: Tensor, stride: int, gt: Instances) -> Tensor:
        """(P,) bool, the pixels in a hard negative's centre region; arguments as for the call."""
        negatives = of_status(gt, BoxStatus.HARD_NEGATIVE).gt_boxes.tensor
        return pixels_in_region(points, negatives, self.center_ratio, stride).any(dim=1)


@PROPOSAL_GENERATOR_REGISTRY.register()
class AFP(nn.Module):
    """Anchor-free proposal network: a centerness and a box branch on one feature map (Section IV-B).

    The centerness branch learns 1 in positive and 0 in negative pixels, the box branch the distances in positive
    ones alone.
    """

    @configurable
    def __init__(
        self,
        *,
        in_feature: str,
        stride: int,
        centerness: nn.Module,
        distances: nn.Module,
        label_assigner: CenterRegionLabeler,
        center_loss: Loss,
        size_loss: Loss,
        size_loss_weight: float = 0.1,
        pre_nms_topk: tuple[int, int] = (300, 200),
        score_thresh_test: float = 0.0,
        partial_labels: PartialLabels | None = None,
    ):
        """
        Args:
            in_feature: name of the feature map.
            stride: of the feature map.
            centerness: (N, C, H, W) to (N, 1, H, W) logits, usually an :class:`OutputBranch`.
            distances: (N, C, H, W) to (N, 4, H, W), usually an :class:`OutputBranch`.
            label_assigner: gives the pixels' targets.
            center_loss: of (n,) logits and (n,) labels 0 or 1, for each pixel.
            size_loss: of (n, 4) distances and (n, 4) true ones, the sum.
            size_loss_weight: lambda_1 of Eq. 1.
            pre_nms_topk: pixels that become proposals in training and at inference.
            score_thresh_test: centerness below which a pixel gives no proposal at inference.
            partial_labels: the centerness branch's loss where lesions are not labelled; None: all are.
        """
        super().__init__()
        self.in_feature, self.stride = in_feature, stride
        self.centerness, self.distances = centerness, distances
        self.label_assigner = label_assigner
        self.center_loss, self.size_loss = center_loss, size_loss
        self.size_loss_weight = size_loss_weight
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}
        self.score_thresh_test = score_thresh_test
        self.partial_labels = partial_labels

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        """Read ``MODEL.AFP``."""
        afp = cfg.MODEL.AFP
        shape = shape_of(input_shape, afp.IN_FEATURE, "MODEL.AFP.IN_FEATURE")
        centerness = OutputBranch(shape.channels, afp.CONV_DIM, 1, kernel_size=3, start=prior_bias(afp.PRIOR_PROB))
        return {
            "in_feature": afp.IN_FEATURE,
            "stride": shape.stride,
            "centerness": centerness,
            "distances": OutputBranch(shape.channels, afp.CONV_DIM, 4, kernel_size=3, start=1.0),
            "label_assigner": CenterRegionLabeler(afp.CENTER_RATIO, afp.IGNORE_RATIO, afp.HARD_NEGATIVE_WEIGHT),
            "center_loss": partial(sigmoid_focal_loss, alpha=afp.FOCAL_ALPHA, gamma=afp.FOCAL_GAMMA),
            "size_loss": partial(F.l1_loss, reduction="sum"),
            "size_loss_weight": cfg.MODEL.LENS.SIZE_LOSS_WEIGHT,
            "pre_nms_topk": (afp.PRE_NMS_TOPK_TRAIN, afp.PRE_NMS_TOPK_TEST),
            "score_thresh_test": afp.SCORE_THRESH_TEST,
            "partial_labels": PartialLabels.from_config(cfg, afp.MISSING_LABELS),
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
            proposals: N Instances with ``proposal_boxes`` and ``objectness_logits``, not yet filtered by NMS.
            losses: with ``gt_instances``, "loss_afp_center" and "loss_afp_size".
        """
        feature = features[self.in_feature]
        centerness, distances = self.centerness(feature).float(), self.distances(feature).float()
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
        """Losses of centerness and distances, both divided by the number of positive pixels.

        Args:
            points: (P, 2).
            logits: (N, P).
            distances: (N, P, 4).
            gt_instances: as for :meth:`forward`.
        """
        targets = [self.label_assigner(points, self.stride, gt) for gt in gt_instances]
        labels, weights, gt_distances = (torch.stack(target) for target in zip(*targets, strict=True))
        valid, center = labels >= 0, labels == 1
        log_counts("afp", center, labels == 0)
        num_center = global_normalizer(int(center.sum()), logits.device)
        if self.partial_labels is None:
            loss_center = (self.center_loss(logits[valid], labels[valid].float()) * weights[valid]).sum()
        else:
            certain = torch.stack(
                [self.label_assigner.on_hard_negative(points, self.stride, gt) for gt in gt_instances]
            )
            loss_center = self._partial_center_loss(logits[valid], center[valid], weights[valid], certain[valid])
        loss_size = self.size_loss(distances[center], gt_distances[center])
        return {
            "loss_afp_center": loss_center / num_center,
            "loss_afp_size": loss_size / num_center * self.size_loss_weight,
        }

    def _partial_center_loss(self, logits: Tensor, center: Tensor, weights: Tensor, certain: Tensor) -> Tensor:
        """Sum of the losses of (n,) pixels; ``center`` are lesions, ``certain`` are known not to be."""
        score = logits.detach().sigmoid()
        own = self.partial_labels.weights(torch.zeros_like(score), score)
        known = center | certain
        weights = torch.where(known, weights, weights * own)
        as_lesion = self.center_loss(logits, torch.ones_like(logits))
        as_background = self.center_loss(logits, torch.zeros_like(logits))
        return self.partial_labels.loss(as_lesion, as_background, center, known, weights)

    def predict_proposals(
        self, points: Tensor, logits: Tensor, distances: Tensor, image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """The highest-scoring pixels' boxes, clipped to their images; arguments as for :meth:`losses`."""
        topk = min(self.pre_nms_topk[self.training], logits.shape[1])
        logits, index = logits.topk(topk, dim=1)
        distances = distances.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = distances_to_boxes(distances, points[index], self.stride)
        sure = None if self.training else logits.sigmoid() >= self.score_thresh_test
        return make_proposals(boxes, logits, image_sizes, sure)
