"""The trunk's rate of multiply-adds beside the machine's own in matrix multiplication; torch.compile of it."""

from __future__ import annotations

import time

import torch

from lens_d2.inference.folded_backbone import FoldedDenseNet25D

from .networks import SIZE, config, multiply_adds, network
from .registry import compare, in_turns, machine, measurement

SIDE = 2048


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


@measurement("matmul-fraction")
@torch.no_grad()
def matmul_fraction() -> dict:
    """Multiply-adds a second of the trunk, over those of a large matrix product; the plain trunk beside it."""
    backbone = network(config()).backbone
    folded = FoldedDenseNet25D(backbone)
    image = torch.randn(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)

    def plain(x):
        c3 = backbone.block2(backbone.transition1(backbone.block1(backbone.stem(x))))
        return backbone.block3(backbone.transition2(c3))

    times = in_turns(
        {"matmul": lambda: a @ b, "plain": lambda: plain(image), "ours": lambda: folded.encode(image)}, 9
    )
    work = {
        "matmul": SIDE**3 / 1e9,
        "plain": multiply_adds(plain, image),
        "ours": multiply_adds(folded.encode, image),
    }
    rates = {name: work[name] / times[name] for name in work}
    return {
        "ratio": rates["ours"] / rates["matmul"],
        "baseline_seconds": times["plain"],
        "ours_seconds": times["ours"],
        "details": {
            "ratio": "multiply-adds a second of the trunk over those of a matrix product",
            "plain_ratio": rates["plain"] / rates["matmul"],
            "multiply_adds_g": work,
            "g_multiply_adds_a_second": rates,
            "size": SIZE,
        }
        | machine(),
    }
