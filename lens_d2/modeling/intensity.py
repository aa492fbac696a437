"""From HU to what a patch-based network gets: the window is a part of the network, patches are kept in HU."""

from __future__ import annotations

from torch import Tensor, nn


class IntensityWindow(nn.Module):
    """Maps a HU range to 0..255, clips, and normalises. It has no state."""

    def __init__(self, hu_range: tuple[float, float], mean: float, std: float):
        super().__init__()
        self.hu_range, self.mean, self.std = tuple(hu_range), float(mean), float(std)

    def forward(self, hu: Tensor) -> Tensor:
        low, high = self.hu_range
        return (((hu.float() - low) * (255.0 / (high - low))).clamp(0, 255) - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"hu_range={self.hu_range}, mean={self.mean:g}, std={self.std:g}"
