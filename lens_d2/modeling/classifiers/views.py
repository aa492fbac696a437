"""What of a patch a network looks at: one of the three planes through its centre, or all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import roi_align

from .roi_align3d import roi_align3d


class Seen(NamedTuple):
    """image: (n, 1, h, w) or (n, 1, D, H, W). boxes: (n, 4) or (n, 6) in the image, edges in voxels."""

    image: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class PlaneView:
    """The plane through the patch's centre across one axis. Between two voxels it is their mean.

    Attributes:
        normal: that axis; 0, 1, 2 for z, y, x. Of the others, the first counts the rows, the second the columns.
    """

    normal: int

    @property
    def axes(self) -> tuple[int, int]:
        return tuple(axis for axis in range(3) if axis != self.normal)

    def __call__(self, patches: Tensor, boxes: Tensor) -> Seen:
        """
        Args:
            patches: (n, 1, D, H, W). boxes: (n, 6) x1, y1, z1, x2, y2, z2 in patch coordinates.
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
    """The whole patch, as it is."""

    def __call__(self, patches: Tensor, boxes: Tensor) -> Seen:
        return Seen(patches, boxes)

    def pool(self, features: Tensor, seen: Seen, resolution: tuple[int, int, int]) -> Tensor:
        """ROIAlign of feature maps (n, C, d, h, w); ``resolution`` are bins along z, y, x."""
        return roi_align3d(features, seen.boxes, seen.image.shape[2:], resolution)


TRANSVERSE, CORONAL, SAGITTAL = PlaneView(0), PlaneView(1), PlaneView(2)
VOLUME = VolumeView()
