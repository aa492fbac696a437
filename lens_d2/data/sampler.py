"""Streams of training batches: which samples make up an epoch, a batch, and a rank's share of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler

from ..structures.status import STATUS_OF_RECORD, BoxStatus


class BatchStream(Sampler[list]):
    """An endless stream of batches, epoch after epoch.

    The stream is a function of the seed and of the number of the batch alone: any number of ranks gives the same
    global batches, and training that resumes at ``start_iter`` continues where it was interrupted.

    Attributes:
        start_iter: number of the first batch; may be set before iteration starts.
        epoch_length: batches of an epoch.
    """

    def __init__(self, batch_size: int, seed: int):
        """
        Args:
            batch_size: samples of a batch over all ranks.
            seed: of every draw.
        """
        self.batch_size, self.seed = batch_size, seed
        self.start_iter = 0
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()
        self.epoch_length = len(self.draw_epoch(np.random.default_rng([seed, 0])))

    @abstractmethod
    def draw_epoch(self, rng: np.random.Generator) -> list[list]:
        """The global batches of an epoch, in order; as many in every epoch."""

    def __iter__(self) -> Iterator[list]:
        if self.batch_size % self.world_size:
            raise ValueError(f"{self.world_size} ranks cannot share a batch of {self.batch_size} evenly")
        epoch, skip = divmod(self.start_iter, self.epoch_length)
        share = self.batch_size // self.world_size
        while True:
            for batch in self.draw_epoch(np.random.default_rng([self.seed, epoch]))[skip:]:
                yield batch[self.rank * share : (self.rank + 1) * share]
            epoch, skip = epoch + 1, 0


class SampleIndex(NamedTuple):
    """One training sample: its number in the dataset, and the seed of its augmentation."""

    sample: int
    seed: int


class EpochBatchSampler(BatchStream):
    """Batches of the samples that a function draws for each epoch."""

    def __init__(self, draw: Callable[[np.random.Generator], np.ndarray], batch_size: int, seed: int):
        """
        Args:
            draw: gives the (n,) samples of an epoch, shuffled; the same number for every epoch.
            batch_size: samples of a batch over all ranks.
            seed: of every draw.
        """
        self.draw = draw
        super().__init__(batch_size, seed)

    def draw_epoch(self, rng: np.random.Generator) -> list[list[SampleIndex]]:
        """Samples that do not fill a batch are left out, but one batch is always filled."""
        samples = self.draw(rng)
        count = max(len(samples) // self.batch_size, 1) * self.batch_size
        seeds = rng.integers(2**31, size=count).tolist()
        indices = [SampleIndex(int(s), seed) for s, seed in zip(np.resize(samples, count), seeds, strict=True)]
        return [indices[i : i + self.batch_size] for i in range(0, count, self.batch_size)]


class SliceIndex(NamedTuple):
    """One training sample: a slice of a sub-volume, and the seed of its augmentation."""

    record: int
    slice: int
    seed: int


@dataclass
class SlicePool:
    """The slices that one expert can learn from (LENS, Section VI-B).

    Attributes:
        lesions: for each 3D lesion, the number of its record and the slices on which its box is known.
        negatives: for each record with free slices, its number and its slices without a box of a lesion or hard
            negative.
        hard_negatives: as ``lesions`` (Lesion-Harvester, Section III-D).
    """

    lesions: list[tuple[int, np.ndarray]]
    negatives: list[tuple[int, np.ndarray]]
    hard_negatives: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @classmethod
    def from_records(cls, records: list[dict], indices: list[int], with_negatives: bool) -> SlicePool:
        """The pool of some of the records.

        Args:
            records: all records.
            indices: numbers of the expert's own.
            with_negatives: whether slices without a box count as negatives.
        """
        drawn = {BoxStatus.LESION: [], BoxStatus.HARD_NEGATIVE: []}
        negatives = []
        for index in indices:
            record, positive = records[index], []
            for lesion in record["lesions"]:
                slices = np.array([int(box[0]) for box in lesion["boxes"]], dtype=np.int64)
                status = STATUS_OF_RECORD[lesion["status"]]
                if status in drawn and len(slices):
                    drawn[status].append((index, slices))
                    positive.append(slices)
            if with_negatives:
                everything = np.arange(record["num_slices"])
                free = np.setdiff1d(everything, np.concatenate(positive)) if positive else everything
                if len(free):
                    negatives.append((index, free))
        return cls(drawn[BoxStatus.LESION], negatives, drawn[BoxStatus.HARD_NEGATIVE])

    def draw(
        self, negative_ratio: float, rng: np.random.Generator, hard_negative_ratio: float = 1.0
    ) -> list[tuple[int, int]]:
        """Draws the samples of an epoch: one slice of each 3D lesion, and negative slices in proportion.

        Each hard negative contributes one slice, at most ``hard_negative_ratio`` per lesion, drawn so that all
        records count equally: a completely marked one may have a hundred times as many as another. Without any
        lesion, as many negatives are drawn as there are records.

        Args:
            negative_ratio: negative slices per lesion.
            rng: source of every draw.
            hard_negative_ratio: hard negatives per lesion, at most.

        Returns:
            (record, slice) of each sample, shuffled.
        """
        drawn = [(record, int(rng.choice(slices))) for record, slices in self.lesions]
        if self.negatives:
            weights = np.array([len(slices) for _, slices in self.negatives], dtype=float)
            count = round(len(drawn) * negative_ratio) if drawn else len(self.negatives)
            for i in rng.choice(len(self.negatives), size=count, p=weights / weights.sum()):
                record, slices = self.negatives[i]
                drawn.append((record, int(rng.choice(slices))))
        if self.hard_negatives:
            count = min(len(self.hard_negatives), round(len(self.lesions) * hard_negative_ratio))
            records = [record for record, _ in self.hard_negatives]
            weights = 1 / np.bincount(records)[records]
            for i in rng.choice(len(records), size=count, replace=False, p=weights / weights.sum()):
                record, slices = self.hard_negatives[i]
                drawn.append((record, int(rng.choice(slices))))
        return [drawn[i] for i in rng.permutation(len(drawn))]


class SingleDatasetBatchSampler(BatchStream):
    """Batches of slices, each from one expert's dataset, the same one on all ranks (LENS, Section VI-B)."""

    def __init__(
        self,
        pools: list[SlicePool],
        batch_size: int,
        negative_ratio: float,
        seed: int,
        hard_negative_ratio: float = 1.0,
    ):
        """
        Args:
            pools: one per expert.
            batch_size: samples of a batch over all ranks.
            negative_ratio: negatives per positive.
            seed: of every draw.
            hard_negative_ratio: hard negatives per positive, at most.

        Raises:
            ValueError: there is no slice to train on.
        """
        self.pools, self.negative_ratio, self.hard_negative_ratio = pools, negative_ratio, hard_negative_ratio
        super().__init__(batch_size, seed)
        if not self.epoch_length:
            raise ValueError("the training datasets have no slice to train on")

    def draw_epoch(self, rng: np.random.Generator) -> list[list[SliceIndex]]:
        """Samples that do not fill a batch are left out until another epoch draws them."""
        batches = []
        for pool in self.pools:
            drawn = pool.draw(self.negative_ratio, rng, self.hard_negative_ratio)
            while drawn and len(drawn) < self.batch_size:
                drawn = drawn + drawn[: self.batch_size - len(drawn)]
            samples = [SliceIndex(r, z, int(rng.integers(2**31))) for r, z in drawn]
            full = len(samples) // self.batch_size * self.batch_size
            batches += [samples[i : i + self.batch_size] for i in range(0, full, self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]
