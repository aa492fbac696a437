"""Heatmaps of lesion centres and their losses (Lesion-Harvester, Eqs. 6 and 8; Zhou et al., "Objects as Points").

Shape shorthand in this file:

    M: number of boxes
    H, W: height and width of the feature map
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor, nn

from ..structures.status import BoxStatus
from .supervision import of_status


class OutputBranch(nn.Sequential):
    """A 3x3 convolution, a ReLU, and a convolution; the branches of AFP and CenterNet."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, kernel_size: int, start: float):
        """
        Args:
            in_channels: channels of the feature map.
            hidden: channels between the convolutions.
            out_channels: channels of the output.
            kernel_size: of the last convolution, odd; maps keep their size.
            start: output near which training starts.
        """
        first = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
        last = nn.Conv2d(hidden, out_channels, kernel_size=kernel_size, padding=kernel_size // 2)
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        nn.init.zeros_(first.bias)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(last.bias, start)
        super().__init__(first, nn.ReLU(inplace=True), last)


def prior_bias(probability: float) -> float:
    """Bias whose sigmoid is ``probability``."""
    return -math.log((1 - probability) / probability)


class HeatmapLabeler:
    """Assigns the pixels of a feature map to lesions by Gaussians around their centres."""

    def __init__(self, min_overlap: float = 0.7, min_radius: int = 0, suppress_hard_negatives: bool = True):
        """
        Args:
            min_overlap: of the Gaussians, see :func:`gaussian_radius`.
            min_radius: of the Gaussians, in pixels of the feature map.
            suppress_hard_negatives: whether hard negatives weigh more than other background (Eq. 8).
        """
        self.min_overlap, self.min_radius = min_overlap, min_radius
        self.suppress_hard_negatives = suppress_hard_negatives

    @torch.no_grad()
    def __call__(self, gt: Instances, size: tuple[int, int], stride: int) -> tuple[Tensor, Tensor]:
        """Target heatmap of one image.

        Args:
            gt: with ``gt_boxes`` and, unless all are lesions, ``gt_status`` (:class:`BoxStatus`).
            size: H, W.
            stride: of the feature map.

        Returns:
            heatmap: (H, W) in [-1, 1], Eq. 8.
            counts: (H, W) bool, False inside uncertain boxes except at lesions' centres and on hard negatives.
        """
        boxes = {status: of_status(gt, status).gt_boxes.tensor / stride for status in BoxStatus}
        heatmap = gaussian_heatmap(boxes[BoxStatus.LESION], size, self.min_overlap, self.min_radius)
        if self.suppress_hard_negatives:
            negatives = gaussian_heatmap(boxes[BoxStatus.HARD_NEGATIVE], size, self.min_overlap, self.min_radius)
            heatmap = with_hard_negatives(heatmap, negatives)
        uncertain = boxes[BoxStatus.UNCERTAIN][..., None]
        x, y = (torch.arange(length, device=uncertain.device) + 0.5 for length in reversed(size))
        in_x = (x >= uncertain[:, 0]) & (x <= uncertain[:, 2])
        in_y = (y >= uncertain[:, 1]) & (y <= uncertain[:, 3])
        ignored = (in_y[:, :, None] & in_x[:, None, :]).any(dim=0)
        return heatmap, ~ignored | (heatmap == 1) | (heatmap < 0)


def gaussian_radius(sizes: Tensor, min_overlap: float) -> Tensor:
    """Radius of the Gaussian of each box, as CenterNet's published code has it.

    That code takes the smallest of three roots of quadratic equations, and divides by 2 where 2a belongs. So the
    last of its roots is always the smallest, r = -o (w + h) + sqrt(o^2 (w + h)^2 + 4 o (1 - o) w h) for an overlap
    o: at most (w + h) / 4, where the others are at least (w + h) / 2. Corners that are off by r do not have the
    overlap o.

    Args:
        sizes: (M, 2) widths and heights in cells; sides are rounded up.
        min_overlap: o, in (0, 1].

    Returns:
        (M,) whole cells, rounded down.
    """
    sizes = sizes.ceil()
    total, area = min_overlap * sizes.sum(dim=1), sizes.prod(dim=1)
    return ((total**2 + 4 * min_overlap * (1 - min_overlap) * area).sqrt() - total).floor()


def gaussian_heatmap(boxes: Tensor, size: tuple[int, int], min_overlap: float, min_radius: int = 0) -> Tensor:
    """Heatmap with 1 in the cells of the boxes' centres, Gaussians around them, and 0 beyond their radii.

    Args:
        boxes: (M, 4) XYXY, in cells of the map.
        size: H, W.
        min_overlap: see :func:`gaussian_radius`.
        min_radius: in cells, that every Gaussian has at least.

    Returns:
        (H, W), the largest value where Gaussians overlap.
    """
    height, width = size
    if not len(boxes):
        return boxes.new_zeros(size)
    radius = gaussian_radius(boxes[:, 2:] - boxes[:, :2], min_overlap).clamp(min=min_radius)
    cells = center_cells(boxes, size).to(boxes)
    sigma = (2 * radius + 1) / 6
    profiles = []
    for axis, length in enumerate((width, height)):
        offset = (torch.arange(length, device=boxes.device) - cells[:, axis, None]).abs()
        profile = torch.exp(-(offset**2) / (2 * sigma[:, None] ** 2))
        profiles.append(profile * (offset <= radius[:, None]))
    return (profiles[1][:, :, None] * profiles[0][:, None, :]).amax(dim=0)


def center_cells(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(M, 2) long: column and row of the cells that hold the centres of (M, 4) boxes, in cells of the map."""
    height, width = size
    limit = torch.tensor([width - 1, height - 1], device=boxes.device)
    return ((boxes[:, :2] + boxes[:, 2:]) / 2).floor().long().clamp(min=0).minimum(limit)


def with_hard_negatives(positive: Tensor, negative: Tensor) -> Tensor:
    """Master heatmap: hard negatives, with their sign changed, overwrite lesions (Eq. 8)."""
    return torch.where(negative > 0, -negative, positive)


def penalty_reduced_focal_loss(logits: Tensor, target: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """Sum over the pixels in Eq. 6, not yet divided by m.

    A pixel of a hard negative, with a target below 0, weighs ``(1 - target) ** beta`` times one with target 0: at
    its centre 2 ** beta, 16 times for beta 4 (hard negative suppression loss, Section III-D).

    Args:
        logits: of the predicted heatmap, any shape.
        target: of the same shape, in [-1, 1]: 1 at centres of lesions.
        alpha: exponent of the predicted probability.
        beta: exponent of the distance from the target.
    """
    probability = logits.sigmoid()
    at_center = (1 - probability) ** alpha * F.logsigmoid(logits)
    elsewhere = (1 - target) ** beta * probability**alpha * F.logsigmoid(-logits)
    return -torch.where(target == 1, at_center, elsewhere).sum()
