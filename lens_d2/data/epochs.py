"""Batches of single samples as a function of their number, for any number of ranks and any restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler


class SampleIndex(NamedTuple):
    """One training sample: its number in the dataset, and the seed of its augmentation."""

    sample: int
    seed: int


class EpochBatchSampler(Sampler[list[SampleIndex]]):
    """An endless stream of batches, epoch after epoch.

    The stream is a function of the seed and of the number of the batch alone: any rank count gives the same
    global batches, and training that resumes at ``start_iter`` goes on where it was interrupted.
    """

    def __init__(self, draw: Callable[[np.random.Generator], np.ndarray], batch_size: int, seed: int):
        """
        Args:
            draw: gives the (n,) samples of an epoch, shuffled; the same number for every epoch.
            batch_size: samples of a batch over all ranks.
            seed: of every draw.
        """
        self.draw, self.batch_size, self.seed = draw, batch_size, seed
        self.start_iter = 0
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()
        if batch_size % self.world_size:
            raise ValueError(f"{self.world_size} ranks cannot share a batch of {batch_size} evenly")
        self.epoch_length = len(self._epoch(0))

    def _epoch(self, epoch: int) -> list[list[SampleIndex]]:
        """The global batches of an epoch. What does not fill a batch is left out; one batch is filled always."""
        rng = np.random.default_rng([self.seed, epoch])
        samples = self.draw(rng)
        count = max(len(samples) // self.batch_size, 1) * self.batch_size
        seeds = rng.integers(2**31, size=count).tolist()
        indices = [SampleIndex(int(s), seed) for s, seed in zip(np.resize(samples, count), seeds, strict=True)]
        return [indices[i : i + self.batch_size] for i in range(0, count, self.batch_size)]

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        epoch, skip = divmod(self.start_iter, self.epoch_length)
        share = self.batch_size // self.world_size
        while True:
            for batch in self._epoch(epoch)[skip:]:
                yield batch[self.rank * share : (self.rank + 1) * share]
            epoch, skip = epoch + 1, 0
