"""Views of a patch, in which networks look at it: intensities, planes, the whole, the inside of a box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align


class IntensityWindow(nn.Module):
    """Maps a HU range to 0..255, clips, normalises: patches are kept in HU, the window is part of a network."""

    def __init__(self, hu_range: tuple[float, float], mean: float, std: float):
        """
        Args:
            hu_range: HU that become 0 and 255.
            mean: of the intensities 0..255.
            std: of the intensities 0..255.
        """
        super().__init__()
        self.hu_range, self.mean, self.std = tuple(hu_range), float(mean), float(std)

    def forward(self, hu: Tensor) -> Tensor:
        """From HU, of any shape, to normalised intensities."""
        low, high = self.hu_range
        return (((hu.float() - low) * (255.0 / (high - low))).clamp(0, 255) - self.mean) / self.std

    def extra_repr(self) -> str:
        """Settings, as ``print`` shows them."""
        return f"hu_range={self.hu_range}, mean={self.mean:g}, std={self.std:g}"


def roi_align3d(
    features: Tensor,
    boxes: Tensor,
    patch_shape: tuple[int, int, int],
    output_size: tuple[int, int, int],
    samples: int = 2,
) -> Tensor:
    """Pool each sample's feature map inside its box.

    The box is divided into bins; a bin is the mean of ``samples`` per axis of evenly spaced, trilinearly
    interpolated values. Beyond the outermost cells' centres, their values continue.

    Args:
        features: (n, C, d, h, w), of patches whose outer faces they share, at any stride.
        boxes: (n, 6) x1, y1, z1, x2, y2, z2 in patch coordinates (edges).
        patch_shape: voxels D, H, W of the patch.
        output_size: bins along z, y, x.
        samples: of a bin along each axis.

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


class Seen(NamedTuple):
    """View of patches.

    Attributes:
        image: (n, 1, h, w) or (n, 1, D, H, W).
        boxes: (n, 4) or (n, 6) in the image, edges in voxels.
    """

    image: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class PlaneView:
    """Plane through the patch's centre across one axis. Between two voxels it is their mean.

    Attributes:
        normal: that axis; 0, 1, 2 for z, y, x. Of the others, the first counts the rows, the second the columns.
    """

    normal: int

    @property
    def axes(self) -> tuple[int, int]:
        """Axes of the rows and of the columns."""
        return tuple(axis for axis in range(3) if axis != self.normal)

    def __call__(self, patches: Tensor, boxes: Tensor) -> Seen:
        """Cut the plane, and the boxes in it.

        Args:
            patches: (n, 1, D, H, W).
            boxes: (n, 6) x1, y1, z1, x2, y2, z2 in patch coordinates.
        """
        size = patches.shape[2 + self.normal]
        middle = patches.narrow(2 + self.normal, (size - 1) // 2, 2 - size % 2)
        row, column = self.axes
        return Seen(middle.mean(dim=2 + self.normal), boxes[:, [2 - column, 2 - row, 5 - column, 5 - row]])

    def pool(self, features: Tensor, seen: Seen, resolution: tuple[int, int, int]) -> Tensor:
        """ROIAlign of feature maps (n, C, h', w') of the plane; ``resolution`` are bins along z, y, x."""
        scale = [there / here for there, here in zip(features.shape[:1:-1], seen.image.shape[:1:-1], strict=True)]
        boxes = seen.boxes * seen.boxes.new_tensor(scale * 2)
        numbers = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
        bins = tuple(resolution[axis] for axis in self.axes)
        return roi_align(
            features, torch.cat([numbers[:, None], boxes], dim=1), bins, sampling_ratio=2, aligned=True
        )


@dataclass(frozen=True)
class VolumeView:
    """The whole patch."""

    def __call__(self, patches: Tensor, boxes: Tensor) -> Seen:
        """Patches and boxes, unchanged."""
        return Seen(patches, boxes)

    def pool(self, features: Tensor, seen: Seen, resolution: tuple[int, int, int]) -> Tensor:
        """ROIAlign of feature maps (n, C, d, h, w); ``resolution`` are bins along z, y, x."""
        return roi_align3d(features, seen.boxes, seen.image.shape[2:], resolution)


TRANSVERSE, CORONAL, SAGITTAL = PlaneView(0), PlaneView(1), PlaneView(2)
VOLUME = VolumeView()
