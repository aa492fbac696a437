"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, 2016, Section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

OUT, KERNEL = 4, 3
TILE = OUT + KERNEL - 1
# The three transforms, for the interpolation points 0, 1, -1, 2, -2 and infinity: rows of B^T, G and A^T.
INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
WEIGHT = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
) / torch.tensor(24.0)
OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)


class WinogradConv2d:
    """A 3x3 convolution of stride 1, padded by 1, with a quarter of the multiplications.

    The map is cut into overlapping tiles of 6x6 pixels, which become 36 matrix products. It pays where both
    channel counts are in the hundreds; results differ from a direct convolution's by about 1e-5 of their size.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        """
        Args:
            weight: (out, in, 3, 3).
            bias: (out,).
        """
        transform = torch.kron(WEIGHT, WEIGHT).to(weight.device)
        out, channels = weight.shape[:2]
        transformed = transform @ weight.double().permute(2, 3, 1, 0).reshape(KERNEL**2, -1)
        self.weight = transformed.view(TILE**2, channels, out).to(weight.dtype)
        self.bias = bias
        self.input, self.output = (torch.kron(m, m).to(weight) for m in (INPUT, OUTPUT))
        self._scratch: dict[str, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """(n, in, h, w) to (n, out, h, w), one image after another, which bounds memory."""
        images = [self._one(image) for image in x.split(1)]
        return torch.cat(images) if len(images) > 1 else images[0]

    def _one(self, image: Tensor) -> Tensor:
        _, channels, height, width = image.shape
        rows, columns = -(-height // OUT), -(-width // OUT)
        below, right = rows * OUT - height + 1, columns * OUT - width + 1
        padded = F.pad(image[0].permute(1, 2, 0), (0, 0, 1, right, 1, below))
        tiles = padded.unfold(0, TILE, OUT).unfold(1, TILE, OUT)  # (rows, columns, in, 6, 6)
        cut = self._buffer("cut", image, TILE, TILE, rows, columns, channels)
        cut.copy_(tiles.permute(3, 4, 0, 1, 2))
        transformed = self._buffer("transformed", image, TILE**2, rows * columns * channels)
        torch.mm(self.input, cut.view(TILE**2, -1), out=transformed)
        products = self._buffer("products", image, TILE**2, rows * columns, len(self.bias))
        torch.bmm(transformed.view(TILE**2, -1, channels), self.weight, out=products)
        pixels = self._buffer("pixels", image, OUT**2, rows * columns * len(self.bias))
        torch.mm(self.output, products.flatten(1), out=pixels)
        pixels = pixels.view(OUT, OUT, rows, columns, -1).permute(2, 0, 3, 1, 4)
        result = pixels.clone(memory_format=torch.contiguous_format).view(rows * OUT, columns * OUT, -1)
        return result[:height, :width].add_(self.bias).permute(2, 0, 1)[None]

    def _buffer(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Memory for a step's result, reused for every image: to allocate it anew costs as much as the step."""
        if name not in self._scratch or self._scratch[name].shape != shape:
            self._scratch[name] = like.new_empty(shape)
        return self._scratch[name]
