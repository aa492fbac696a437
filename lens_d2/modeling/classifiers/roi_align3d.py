"""ROIAlign in three dimensions, one box per sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def roi_align3d(
    features: Tensor,
    boxes: Tensor,
    patch_shape: tuple[int, int, int],
    output_size: tuple[int, int, int],
    samples: int = 2,
) -> Tensor:
    """Pool each sample's feature map inside its box.

    The box is divided into bins; a bin is the mean of ``samples`` per axis evenly spaced, trilinearly
    interpolated values. Beyond the outermost cells' centres, their values continue.

    Args:
        features: (n, C, d, h, w), of patches whose outer faces they share, at any stride.
        boxes: (n, 6) x1, y1, z1, x2, y2, z2 in patch coordinates (edges).
        patch_shape: voxels D, H, W of the patch.
        output_size: bins along z, y, x.

    Returns:
        (n, C, *output_size)
    """
    axes = []  # sample positions along z, y, x as parts of the patch, -1 and 1 being its faces
    for axis, (bins, size) in enumerate(zip(output_size, patch_shape, strict=True)):
        low, high = boxes[:, 2 - axis, None], boxes[:, 5 - axis, None]
        count = bins * samples
        middles = (torch.arange(count, device=boxes.device, dtype=boxes.dtype) + 0.5) / count
        axes.append((low + (high - low) * middles) * (2.0 / size) - 1.0)
    z, y, x = axes
    shape = (len(boxes), z.shape[1], y.shape[1], x.shape[1])
    grid = torch.stack(
        [x[:, None, None, :].expand(shape), y[:, None, :, None].expand(shape), z[:, :, None, None].expand(shape)],
        dim=-1,
    )
    values = F.grid_sample(features, grid.to(features.dtype), padding_mode="border", align_corners=False)
    return F.avg_pool3d(values, samples)
