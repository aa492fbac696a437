"""Which slices make up an epoch, a batch, and a rank's share of it (LENS, Section VI-B)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler

from ..structures.status import STATUS_OF_RECORD, BoxStatus


class SliceIndex(NamedTuple):
    """One training sample: a slice of a sub-volume, and the seed of its augmentation."""

    record: int
    slice: int
    seed: int


@dataclass
class SlicePool:
    """The slices of one dataset that can be drawn.

    Attributes:
        lesions: per 3D lesion, the record it is in and the slices on which its box is known.
        negatives: per record that has any, its index and its slices without a box of a lesion or hard negative.
        hard_negatives: as ``lesions`` (Lesion-Harvester, Section III-D).
    """

    lesions: list[tuple[int, np.ndarray]]
    negatives: list[tuple[int, np.ndarray]]
    hard_negatives: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @classmethod
    def from_records(cls, records: list[dict], indices: list[int], with_negatives: bool) -> SlicePool:
        """
        Args:
            records: all records. indices: those of this dataset.
            with_negatives: whether slices without a box count as negatives here.
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
        """(record, slice) of one epoch, shuffled: a slice per 3D lesion, and negatives in proportion.

        Hard negatives give a slice each as well; of more than so many per lesion, only as many, of every record
        alike, as one that is completely marked may have a hundred times those of another.
        A dataset that has no lesion at all gives as many negatives as it has records.
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


class SingleDatasetBatchSampler(Sampler[list[SliceIndex]]):
    """An endless stream of batches, each from one dataset, the same one on all ranks.

    The stream is a function of the seed and of the number of the batch alone: any rank count gives the same
    global batches, and training that resumes at ``start_iter`` goes on where it was interrupted.
    """

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
        """
        self.hard_negative_ratio = hard_negative_ratio
        self.pools, self.batch_size = pools, batch_size
        self.negative_ratio, self.seed = negative_ratio, seed
        self.start_iter = 0
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()
        self.epoch_length = len(self._epoch(0))
        if not self.epoch_length:
            raise ValueError("the training datasets have no slice to train on")

    def _epoch(self, epoch: int) -> list[list[SliceIndex]]:
        """The global batches of an epoch, in order. What does not fill a batch waits for another epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        batches = []
        for pool in self.pools:
            drawn = pool.draw(self.negative_ratio, rng, self.hard_negative_ratio)
            while drawn and len(drawn) < self.batch_size:
                drawn = drawn + drawn[: self.batch_size - len(drawn)]
            samples = [SliceIndex(r, z, int(rng.integers(2**31))) for r, z in drawn]
            full = len(samples) // self.batch_size * self.batch_size
            batches += [samples[i : i + self.batch_size] for i in range(0, full, self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def __iter__(self) -> Iterator[list[SliceIndex]]:
        if self.batch_size % self.world_size:
            raise ValueError(f"{self.world_size} ranks cannot share a batch of {self.batch_size} evenly")
        epoch, skip = divmod(self.start_iter, self.epoch_length)
        share = self.batch_size // self.world_size
        while True:
            for batch in self._epoch(epoch)[skip:]:
                yield batch[self.rank * share : (self.rank + 1) * share]
            epoch, skip = epoch + 1, 0
