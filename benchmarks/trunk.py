"""The trunk's rate of multiply-adds beside the machine's own in convolutions; torch.compile of it."""

from __future__ import annotations

import time

import torch

from lens_d2.inference.folded_backbone import FoldedDenseNet25D

from .networks import SIZE, config, multiply_adds, network
from .registry import compare, in_turns, machine, measurement

# Kernel, channels, side of the maps: shapes like the trunk's, and wider ones that a processor likes best.
CONVOLUTIONS = [
    (1, 128, 64), (1, 256, 64), (1, 512, 32), (3, 128, 64), (3, 256, 64), (3, 512, 32),
]  # fmt: skip


@measurement("compiled-trunk")
@torch.no_grad()
def compiled_trunk() -> dict:
    """torch.compile of the trunk against the same without, and what compiling takes; needs a C++ compiler."""
    encode = FoldedDenseNet25D(network(config()).backbone).encode
    image = torch.randn(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(encode, dynamic=False)
    start = time.perf_counter()
    compiled(image)
    first = time.perf_counter() - start
    times = in_turns({"plain": lambda: encode(image), "compiled": lambda: compiled(image)}, 9)
    return compare(times["plain"], times["compiled"], first_call_seconds=first)


@measurement("convolution-fraction")
@torch.no_grad()
def convolution_fraction() -> dict:
    """Multiply-adds a second of the trunk over those of the fastest convolution; the plain trunk beside it."""
    backbone = network(config()).backbone
    folded = FoldedDenseNet25D(backbone)
    image = torch.randn(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)

    def plain(x):
        c3 = backbone.block2(backbone.transition1(backbone.block1(backbone.stem(x))))
        return backbone.block3(backbone.transition2(c3))

    functions = {"plain": lambda: plain(image), "ours": lambda: folded.encode(image)}
    work = {"plain": multiply_adds(plain, image), "ours": multiply_adds(folded.encode, image)}
    for kernel, channels, side in CONVOLUTIONS:
        name = f"{kernel}x{kernel}, {channels} channels, {side}x{side}"
        convolution = torch.nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        convolution = convolution.to(memory_format=torch.channels_last)
        maps = torch.randn(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        functions[name] = lambda convolution=convolution, maps=maps: convolution(maps)
        work[name] = (kernel * channels * side) ** 2 / 1e9
    times = in_turns(functions, 9, clock=time.process_time)  # hardly feels other programs
    rates = {name: work[name] / times[name] for name in work}
    peak = max(rate for name, rate in rates.items() if name not in ("plain", "ours"))
    return {
        "ratio": rates["ours"] / peak,
        "baseline_seconds": times["plain"],
        "ours_seconds": times["ours"],
        "details": {
            "ratio": "multiply-adds a second of the trunk over those of the fastest convolution",
            "plain_ratio": rates["plain"] / peak,
            "multiply_adds_g": work,
            "g_multiply_adds_a_second": rates,
            "size": SIZE,
        }
        | machine(),
    }
