"""What makes a step the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from detectron2.utils import comm


def global_normalizer(count: float, device: torch.device) -> float:
    """What a rank divides its sum of losses by, so that the mean over the ranks is that of the global batch.

    DDP averages gradients over the ranks; a rank with few lesions would else weigh each of them more. All ranks
    have to call this.

    Args:
        count: of this rank, of what the loss is per (lesions, pixels, proposals).

    Returns:
        The global count, at least 1, over the number of ranks.
    """
    ranks = comm.get_world_size()
    if ranks == 1:
        return max(float(count), 1.0)
    total = torch.tensor(float(count), device=device)
    torch.distributed.all_reduce(total)
    return max(float(total), 1.0) / ranks


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on the seed alone, and leave no trace in those that come after; None: as ever."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
