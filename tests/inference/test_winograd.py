"""Winograd's convolution is a convolution."""

import pytest
import torch
import torch.nn.functional as F

from lens_d2.inference.winograd import WinogradConv2d


@pytest.mark.parametrize("height, width", [(4, 4), (8, 12), (1, 1), (7, 10), (3, 17)])
def test_equal_to_a_direct_convolution(height, width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, height, width, generator=generator)
    weight, bias = torch.randn(7, 5, 3, 3, generator=generator), torch.randn(7, generator=generator)
    direct = F.conv2d(x, weight, bias, padding=1)
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = WinogradConv2d(weight, bias)(x.contiguous(memory_format=layout))
        torch.testing.assert_close(ours, direct, atol=1e-4, rtol=0)


def test_rounding_stays_small_at_the_networks_width():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 512, 12, 12, generator=generator).relu()
    weight = torch.randn(64, 512, 3, 3, generator=generator) / (512 * 9) ** 0.5
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (WinogradConv2d(weight, torch.zeros(64))(x) - exact).abs().max()
    assert error < 2e-5 * exact.abs().max()
