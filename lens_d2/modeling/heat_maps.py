"""Heat maps of lesion centres and their losses (Lesion-Harvester, Eqs. 6 and 8; Zhou et al., "Objects as Points").

Shape shorthand in this file:

    M: number of boxes
    H, W: height and width of the feature map
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The ways in which the corners of a box can be off by r, as (sides that r is taken from, power of the overlap t):
# one side of each pair shifted, both moved inwards, both moved outwards.
_SHIFTS = ((1, lambda t: 2 * t / (1 + t)), (2, lambda t: t), (-2, lambda t: 1 / t))


def gaussian_radius(sizes: Tensor, min_overlap: float) -> Tensor:
    """How far a box's corners may be off so that it still has an IoU of ``min_overlap`` with the true one.

    Args:
        sizes: (M, 2) widths and heights.

    Returns:
        (M,) in the same units.
    """
    total, area = sizes.sum(dim=1), sizes.prod(dim=1)
    radii = []
    for sides, part in _SHIFTS:  # (w - sides r)(h - sides r) = part w h, solved for r
        root = (total**2 - 4 * (1 - part(min_overlap)) * area).clamp(min=0).sqrt()
        radii.append((total - root) / (2 * sides))
    return torch.stack(radii).amin(dim=0)


def gaussian_heat_map(boxes: Tensor, size: tuple[int, int], min_overlap: float, min_radius: int = 0) -> Tensor:
    """1 in the cells that the boxes' centres lie in, falling off around them; 0 outside the Gaussians' radii.

    Args:
        boxes: (M, 4) XYXY, in cells of the map.
        size: H, W.
        min_overlap, min_radius: see :func:`gaussian_radius`; radii are whole cells, at least ``min_radius``.

    Returns:
        (H, W), the largest value where Gaussians overlap.
    """
    height, width = size
    if not len(boxes):
        return boxes.new_zeros(size)
    radius = gaussian_radius(boxes[:, 2:] - boxes[:, :2], min_overlap).floor().clamp(min=min_radius)
    cells = center_cells(boxes, size).to(boxes)
    sigma = (2 * radius + 1) / 6
    profiles = []
    for axis, length in enumerate((width, height)):
        offset = (torch.arange(length, device=boxes.device) - cells[:, axis, None]).abs()
        profile = torch.exp(-(offset**2) / (2 * sigma[:, None] ** 2))
        profiles.append(profile * (offset <= radius[:, None]))
    return (profiles[1][:, :, None] * profiles[0][:, None, :]).amax(dim=0)


def center_cells(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(M, 2) long: column and row of the cells that the centres of (M, 4) boxes, in cells of the map, lie in."""
    height, width = size
    limit = torch.tensor([width - 1, height - 1], device=boxes.device)
    return ((boxes[:, :2] + boxes[:, 2:]) / 2).floor().long().clamp(min=0).minimum(limit)


def with_hard_negatives(positive: Tensor, negative: Tensor) -> Tensor:
    """The master heat map: hard negatives, with their sign changed, overwrite lesions (Eq. 8)."""
    return torch.where(negative > 0, -negative, positive)


def penalty_reduced_focal_loss(logits: Tensor, target: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """The sum over the pixels in Eq. 6, not yet divided by m.

    A pixel in a hard negative, with a target below 0, weighs ``(1 - target) ** beta`` times one with target 0: at
    its centre 2 ** beta, 16 times for beta 4 (hard negative suppression loss, Section III-D).

    Args:
        logits: of the predicted heat map, any shape.
        target: the same shape, in [-1, 1]: 1 at centres of lesions.
    """
    probability = logits.sigmoid()
    at_center = (1 - probability) ** alpha * F.logsigmoid(logits)
    elsewhere = (1 - target) ** beta * probability**alpha * F.logsigmoid(-logits)
    return -torch.where(target == 1, at_center, elsewhere).sum()
