"""Streams of training batches: which samples make up an epoch, a batch, and a rank's share of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler

from ..io.errors import DataError
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


# The slices of each of several 3D lesions or hard negatives of a record, (k,) whole numbers each.
Slices = list[np.ndarray]


def one_of_each(lesions: Slices, hard_negatives: Slices) -> tuple[Slices, Slices]:
    """One slice of each 3D lesion and hard negative (LENS, Section VI-B)."""
    return lesions, hard_negatives


def each_slice(lesions: Slices, hard_negatives: Slices) -> tuple[Slices, Slices]:
    """Each slice with a lesion, and each other one with a hard negative (Lesion-Harvester, Section III-D).

    So the slice of a mark and the best slice of a proposal are both in the epoch.
    """
    with_lesion, with_hard_negative = (
        {z for own in slices for z in own.tolist()} for slices in (lesions, hard_negatives)
    )
    rest = with_hard_negative - with_lesion
    return [np.array([z]) for z in sorted(with_lesion)], [np.array([z]) for z in sorted(rest)]


# DATASETS.EPOCH by name: functions that group the slices of a record's lesions and of its hard negatives; an epoch
# draws one sample from each group.
EPOCHS: dict[str, Callable[[Slices, Slices], tuple[Slices, Slices]]] = {
    "lesions": one_of_each,
    "slices": each_slice,
}


@dataclass
class SlicePool:
    """The slices of one expert's datasets that can be learnt from.

    Attributes:
        lesions: for each positive sample of an epoch, the number of its record and the slices from which it is
            drawn, see :data:`EPOCHS`.
        negatives: for each record with free slices, its number and its slices without a box of a lesion or hard
            negative.
        hard_negatives: as ``lesions``.
        weights: {record: how often an epoch draws each of its samples}; 1 for records that it leaves out.
    """

    lesions: list[tuple[int, np.ndarray]]
    negatives: list[tuple[int, np.ndarray]]
    hard_negatives: list[tuple[int, np.ndarray]] = field(default_factory=list)
    weights: dict[int, float] = field(default_factory=dict)

    @classmethod
    def from_records(
        cls, records: list[dict], indices: list[int], with_negatives: bool, epoch: str = "lesions"
    ) -> SlicePool:
        """The pool of some of the records.

        Args:
            records: all records.
            indices: numbers of the expert's own.
            with_negatives: whether slices without a box count as negatives.
            epoch: name in :data:`EPOCHS` of the groups of slices from which an epoch draws one sample each.
        """
        pool = cls([], [])
        for index in indices:
            record = records[index]
            if "weight" in record:
                pool.weights[index] = record["weight"]
            known: dict[BoxStatus, Slices] = {status: [] for status in BoxStatus}
            for lesion in record["lesions"]:
                slices = np.array([int(box[0]) for box in lesion["boxes"]], dtype=np.int64)
                if len(slices):
                    known[STATUS_OF_RECORD[lesion["status"]]].append(slices)
            drawn = known[BoxStatus.LESION], known[BoxStatus.HARD_NEGATIVE]
            lesions, hard_negatives = EPOCHS[epoch](*drawn)
            pool.lesions += [(index, slices) for slices in lesions]
            pool.hard_negatives += [(index, slices) for slices in hard_negatives]
            if with_negatives:
                free = np.setdiff1d(np.arange(record["num_slices"]), np.concatenate([[], *drawn[0], *drawn[1]]))
                if len(free):
                    pool.negatives.append((index, free))
        return pool

    def draw(
        self,
        negative_ratio: float,
        rng: np.random.Generator,
        hard_negative_ratio: float = 1.0,
        records_alike: bool = False,
    ) -> list[tuple[int, int]]:
        """Draw the samples of an epoch: one of each of ``lesions``, and negative slices in proportion.

        A lesion has as many samples as the weight w of its record says; the fraction of w takes part in a draw
        among all fractions. Each of ``hard_negatives`` contributes one slice, at most ``hard_negative_ratio`` per
        positive sample; more of them are drawn from records with a greater weight. Without any lesion, as many
        negatives are drawn as there are records.

        Args:
            negative_ratio: negative slices per positive sample.
            rng: source of every draw.
            hard_negative_ratio: hard negatives per positive sample, at most.
            records_alike: whether hard negatives are drawn so that all records count equally, though a completely
                marked one may have a hundred times as many as another; otherwise each is drawn as often.

        Returns:
            (record, slice) of each sample, shuffled.
        """
        drawn = [(record, int(rng.choice(slices))) for record, slices in self._weighted_lesions(rng)]
        positives = len(drawn)
        if self.negatives:
            weights = np.array([len(z) * self.weights.get(record, 1.0) for record, z in self.negatives])
            count = round(positives * negative_ratio) if positives else len(self.negatives)
            for i in rng.choice(len(self.negatives), size=count, p=weights / weights.sum()):
                record, slices = self.negatives[i]
                drawn.append((record, int(rng.choice(slices))))
        if self.hard_negatives:
            count = min(len(self.hard_negatives), round(positives * hard_negative_ratio))
            records = np.array([record for record, _ in self.hard_negatives])
            weights = np.array([self.weights.get(record, 1.0) for record in records.tolist()])
            weights = weights / np.bincount(records)[records] if records_alike else weights
            for i in rng.choice(len(records), size=count, replace=False, p=weights / weights.sum()):
                record, slices = self.hard_negatives[i]
                drawn.append((record, int(rng.choice(slices))))
        return [drawn[i] for i in rng.permutation(len(drawn))]

    def _weighted_lesions(self, rng: np.random.Generator) -> list[tuple[int, np.ndarray]]:
        """``lesions``, each as often as its record's weight says.

        Fractions are drawn in proportion, by systematic sampling in a random order. Every epoch has as many of
        them, their rounded sum, or one if that is 0.
        """
        if not self.weights or not self.lesions:
            return self.lesions
        weights = np.array([self.weights.get(record, 1.0) for record, _ in self.lesions])
        rest = weights % 1
        times = (weights - rest).astype(int)
        if rest.any():
            count, order = max(round(rest.sum()), 1), rng.permutation(len(rest))
            ends = np.cumsum(rest[order]) / rest.sum() * count + rng.random()
            ends[-1] = count  # whatever the sum of floats is; what is drawn lies before it
            times[order] += np.diff(np.floor(ends), prepend=0).astype(int)
        return [lesion for lesion, n in zip(self.lesions, times.tolist(), strict=True) for _ in range(n)]


class SingleDatasetBatchSampler(BatchStream):
    """Batches of slices, each for one expert that learns, the same one on all ranks (LENS, Section VI-B).

    An expert learns from one dataset, or from several that are pooled, whose slices its batches mix.
    """

    def __init__(
        self,
        pools: Sequence[Sequence[SlicePool]],
        batch_size: int,
        negative_ratio: float,
        seed: int,
        hard_negative_ratio: float = 1.0,
        records_alike: bool = False,
    ):
        """
        Args:
            pools: for each expert that learns, those of its datasets.
            batch_size: samples of a batch over all ranks.
            negative_ratio: negatives per positive.
            seed: of every draw.
            hard_negative_ratio: hard negatives per positive, at most.
            records_alike: whether hard negatives are drawn from all records alike, see :meth:`SlicePool.draw`.

        Raises:
            DataError: there is no slice to train on.
        """
        self.pools, self.negative_ratio = pools, negative_ratio
        self.hard_negative_ratio, self.records_alike = hard_negative_ratio, records_alike
        super().__init__(batch_size, seed)
        if not self.epoch_length:
            fault = "no slice to train on: none has a lesion, and none counts as free of lesions"
            raise DataError("DATASETS.TRAIN", fault)

    def draw_epoch(self, rng: np.random.Generator) -> list[list[SliceIndex]]:
        """The batches of an epoch, in random order.

        Samples that do not fill a last batch are left out until another epoch draws them; if there are too few for
        a single batch, they are repeated.
        """
        batches = []
        for pools in self.pools:
            of_datasets = [
                pool.draw(self.negative_ratio, rng, self.hard_negative_ratio, self.records_alike) for pool in pools
            ]
            drawn = [sample for own in of_datasets for sample in own]
            if len(pools) > 1:
                drawn = [drawn[i] for i in rng.permutation(len(drawn))]
            while drawn and len(drawn) < self.batch_size:
                drawn = drawn + drawn[: self.batch_size - len(drawn)]
            samples = [SliceIndex(r, z, int(rng.integers(2**31))) for r, z in drawn]
            full = len(samples) // self.batch_size * self.batch_size
            batches += [samples[i : i + self.batch_size] for i in range(0, full, self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]
