"""Data loaders: batches of slices for training, whole sub-volumes for inference."""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog, DatasetFromList, MetadataCatalog
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, Dataset

from ..io import preemption
from ..io.errors import DataError, did_you_mean
from .cache import VolumeCache, build_cache
from .datasets.catalog import shuffled_patients
from .ledger.merge import apply_ledger
from .ledger.table import read_ledger
from .mapper import DATASET_COMBINATIONS, SliceMapper
from .sampler import BatchStream, SingleDatasetBatchSampler, SliceIndex, SlicePool

logger = logging.getLogger(__name__)


_open: weakref.WeakSet[SampleLoader] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the workers of all loaders. Python would wait for them forever, as they ignore its signal."""
    for loader in tuple(_open):
        loader.close()


def _begin_worker(parent: int, _number: int) -> None:
    """Ignore requests to end, in a worker of the process ``parent``; exit if that process has ended meanwhile.

    PyTorch's own watchdog starts later, and mistakes whatever process is the parent by then for the original one.
    Its limit of one thread does not reach NumPy's BLAS, which would use all cores in every worker.
    """
    preemption.ignore()
    if os.getppid() != parent:
        os._exit(1)
    threadpool_limits(1)


class SampleLoader(DataLoader):
    """A DataLoader that raises a worker's :class:`DataError` unchanged, and whose workers ignore requests to end.

    PyTorch would turn the error into a RuntimeError with a traceback, as its constructor takes two arguments. A
    batch system also signals the workers of a rank that is still to finish its step.

    Attributes:
        finish: applied to each batch in this process, after the workers; by default it changes nothing.
    """

    def __init__(self, dataset: Dataset, *, collate_fn: Callable[[list], Any], num_workers: int, **kwargs):
        """
        Args:
            dataset, collate_fn, num_workers, kwargs: of PyTorch's DataLoader; workers persist between epochs.
        """
        super().__init__(
            _Guarded(dataset),
            collate_fn=_Collate(collate_fn),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=partial(_begin_worker, os.getpid()),
            **kwargs,
        )
        self.finish: Callable[[Any], Any] = lambda batch: batch
        if num_workers:
            _open.add(self)
            # For a rank, in which atexit is not called; before the queues of the workers are closed.
            multiprocessing.util.Finalize(None, _close_all, exitpriority=100)

    @property
    def samples(self) -> Dataset:
        """The dataset that the loader was made for."""
        return self.dataset.dataset

    def close(self) -> None:
        """End the workers, which would otherwise live as long as the process."""
        if self._iterator is not None:
            self._iterator._shutdown_workers()
            for worker in self._iterator._workers:
                worker.kill()  # one that is stuck
            self._iterator = None

    def __iter__(self) -> Iterator:
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield self.finish(batch)


class _Guarded(Dataset):
    """The samples of a dataset, with the error in place of one that cannot be read."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index):
        try:
            return self.dataset[index]
        except DataError as error:
            return error


class _Collate:
    """Collates a batch of samples, or passes on the first error among them."""

    def __init__(self, collate_fn: Callable[[list], Any]):
        self.collate_fn = collate_fn

    def __call__(self, samples: list) -> Any:
        return next((s for s in samples if isinstance(s, DataError)), None) or self.collate_fn(samples)


class SliceDataset(Dataset):
    """Samples of slices, indexed by :class:`SliceIndex`."""

    def __init__(self, records: list[dict], mapper: Callable[[dict, int, int], dict]):
        """
        Args:
            records: of sub-volumes.
            mapper: makes the sample of a record, slice number and seed.
        """
        self.records = DatasetFromList(records)
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SliceIndex) -> dict:
        return self.mapper(self.records[index.record], index.slice, index.seed)


def load_records(names: Iterable[str], cache: VolumeCache | None = None) -> list[dict]:
    """Load the records of registered datasets, one after another.

    Args:
        names: of the datasets.
        cache: from which the records' volumes will be opened repeatedly, see :meth:`VolumeCache.resolve`.

    Raises:
        DataError: a name is not registered, something in a dataset is unsound, or a source of ``cache`` is absent.
    """
    names, known = list(names), DatasetCatalog.list()
    for name in names:
        if name not in known:
            own = "one of your own needs a config with its file in DATASETS.READERS"
            raise DataError(name, f"no registered dataset{did_you_mean(name, known)}; {own}")
    records = []
    for name in names:
        own = DatasetCatalog.get(name)
        lesions = sum(len(record["lesions"]) for record in own)
        logger.info("%s: %d sub-volumes, %d lesions", name, len(own), lesions)
        records += own
    return records if cache is None else cache.resolve(records)


def dataset_numbers(cfg: CfgNode, key: str, most: float = float("inf")) -> dict[str, float]:
    """Read pairs of a training dataset and a number.

    Args:
        cfg: of a run.
        key: below ``DATASETS``: "SHARES" or "WEIGHTS".
        most: largest number that is allowed; it must be positive.

    Returns:
        {dataset: number} of the datasets that are named, which need not be in ``DATASETS.TRAIN``: a stage may
        train on some of a run's datasets.

    Raises:
        DataError: an entry is no such pair, or a number is not allowed.
    """
    pairs = cfg.DATASETS[key]
    try:
        numbers = {str(name): float(number) for name, number in pairs}
    except (TypeError, ValueError):
        form = "give pairs of a dataset and a number, such as (('luna_train', 0.5),)"
        raise DataError(f"DATASETS.{key}", f"{pairs!r} cannot be used: {form}") from None
    if len(numbers) < len(pairs):
        raise DataError(f"DATASETS.{key}", f"{pairs!r} names a dataset twice")
    for name, number in numbers.items():
        if not 0 < number <= most or number == float("inf"):
            limit = f" and at most {most:g}" if most < float("inf") else ""
            raise DataError(f"DATASETS.{key}", f"{number:g} for {name}; it must be above 0{limit}")
    return numbers


def share_of_patients(records: list[dict], share: float, seed: int) -> list[dict]:
    """Select the records of a share of the patients, at least one; a smaller share is a part of a larger one.

    Args:
        records: of one dataset.
        share: of its patients, in (0, 1].
        seed: of the choice.
    """
    patients = shuffled_patients((record["patient"] for record in records), seed)
    chosen = set(patients[: max(round(share * len(patients)), 1)])
    return [record for record in records if record["patient"] in chosen]


def share_of_dataset(cfg: CfgNode, name: str, records: list[dict]) -> list[dict]:
    """The part of a training dataset's records that ``DATASETS.SHARES`` leaves, or all of them.

    Args:
        cfg: of a run.
        name: of the dataset.
        records: all of the dataset.

    Raises:
        DataError: as in :func:`dataset_numbers`.
    """
    shares = dataset_numbers(cfg, "SHARES", most=1.0)
    if name not in shares:
        return records
    part = share_of_patients(records, shares[name], max(cfg.SEED, 0))
    logger.info("%s: %d of %d sub-volumes (DATASETS.SHARES)", name, len(part), len(records))
    return part


def load_training_records(cfg: CfgNode, names: Sequence[str] | None = None) -> list[dict]:
    """Load the records of ``DATASETS.TRAIN``, merged with the mined boxes of ``DATASETS.LEDGER`` if there is one.

    Datasets in ``DATASETS.SHARES`` are cut to a share, and so is the ledger; records of those in
    ``DATASETS.WEIGHTS`` have a ``weight``.

    Args:
        cfg: ``DATASETS`` is read.
        names: datasets whose records are wanted; the ledger may also name sub-volumes of the others in
            ``DATASETS.TRAIN``. None: all of ``DATASETS.TRAIN``.

    Raises:
        DataError: as in :func:`load_records` and :func:`dataset_numbers`; or the ledger contradicts itself or the
            datasets, or uses a name that sub-volumes of two experts share; or a sub-volume is in two of the wanted
            datasets.
    """
    weights = dataset_numbers(cfg, "WEIGHTS")
    cache, records, everything, where = build_cache(cfg), [], [], {}
    wanted = cfg.DATASETS.TRAIN if names is None else names
    for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *wanted)):
        own = _load_some("DATASETS.TRAIN", name, cache)
        everything += own
        if name not in wanted:
            continue
        own = share_of_dataset(cfg, name, own)
        for record in own:
            first = where.setdefault((record["expert"], record["volume"]), name)
            if first != name:
                fault = f"{record['volume']} is in {first} and in {name}: their labels would contradict each other"
                raise DataError("DATASETS.TRAIN", f"{fault}; leave one of them out")
        records += [{**record, "weight": weights[name]} for record in own] if name in weights else own
    if not cfg.DATASETS.LEDGER:
        return records
    ledger = read_ledger(cfg.DATASETS.LEDGER, everything)
    in_ledger = set(ledger["volume"])
    if shared := shared_name(record for record in everything if record["volume"] in in_ledger):
        volume, first, second = shared
        fault = f"its {volume} may be that of {first} or that of {second}: give one another name"
        raise DataError(cfg.DATASETS.LEDGER, fault)
    used = ledger[ledger["volume"].isin({record["volume"] for record in records})]
    if len(used) < len(ledger):
        logger.info("%s: %d of %d rows", cfg.DATASETS.LEDGER, len(used), len(ledger))
    return apply_ledger(records, used, cfg.DATASETS.UNCERTAIN_AS_LESION)


def shared_name(records: Iterable[dict]) -> tuple[str, str, str] | None:
    """A name that sub-volumes of two experts have, and these experts; None without one."""
    experts: dict[str, str] = {}
    for record in records:
        if (first := experts.setdefault(record["volume"], record["expert"])) != record["expert"]:
            return record["volume"], first, record["expert"]
    return None


def load_test_records(cfg: CfgNode, name: str) -> list[dict]:
    """Load the records of a dataset of ``DATASETS.TEST``.

    Raises:
        DataError: as in :func:`load_records`, or there are none.
    """
    return _load_some("DATASETS.TEST", name, build_cache(cfg))


def _load_some(key: str, name: str, cache: VolumeCache) -> list[dict]:
    """Records of a dataset that a config key names, which has to have some."""
    records = load_records((name,), cache)
    if not records:
        place = MetadataCatalog.get(name).get("root", "the folder of the datasets")
        raise DataError(key, f"{name}: {place} holds no sub-volume of it")
    return records


def build_batch_sampler(cfg: CfgNode, records: list[dict]) -> SingleDatasetBatchSampler:
    """The stream of batches over the records of all training datasets, each batch for one expert that learns."""
    of_expert: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        of_expert.setdefault(record["expert"], []).append(index)
    metadata = [MetadataCatalog.get(name) for name in cfg.DATASETS.TRAIN]
    # Without 3D truth, lesions cross slices on which they have no box.
    partly_labelled = {own.expert for own in metadata if not (own.fully_labelled and own.get("truth_is_3d", True))}
    keys = cfg.DATASETS
    pools: dict[str, list[SlicePool]] = {}
    for expert, indices in of_expert.items():
        learner, lesions_only = DATASET_COMBINATIONS[keys.COMBINE](expert, cfg.MODEL.LENS.EXPERTS)
        with_negatives = not lesions_only and (expert not in partly_labelled or keys.UNLABELED_SLICES)
        own = SlicePool.from_records(records, indices, with_negatives, keys.EPOCH)
        pools.setdefault(learner, []).append(own)
    return SingleDatasetBatchSampler(
        list(pools.values()),
        cfg.SOLVER.IMS_PER_BATCH,
        keys.NEGATIVE_RATIO,
        max(cfg.SEED, 0),
        keys.HARD_NEGATIVE_RATIO,
        keys.HARD_NEGATIVES_BY_RECORD,
    )


def _train_loader_from_config(
    cfg: CfgNode, *, records: list[dict] | None = None, mapper: SliceMapper | None = None, sampler=None
) -> dict:
    records = load_training_records(cfg) if records is None else records
    return {
        "records": records,
        "mapper": SliceMapper(cfg, is_train=True) if mapper is None else mapper,
        "sampler": build_batch_sampler(cfg, records) if sampler is None else sampler,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


@configurable(from_config=_train_loader_from_config)
def build_train_loader(
    records: list[dict],
    *,
    mapper: Callable[[dict, int, int], dict],
    sampler: BatchStream,
    num_workers: int = 0,
) -> SampleLoader:
    """Build the endless training loader; ``build_train_loader(cfg)`` fills in what is not given.

    Args:
        records: of sub-volumes; those of :func:`load_training_records`.
        mapper: makes the sample of a record, slice number and seed; a :class:`SliceMapper` with augmentation.
        sampler: gives this rank's share of each batch as :class:`SliceIndex`; that of :func:`build_batch_sampler`.
        num_workers: processes that load samples; 0 loads in this one.

    Returns:
        lists of samples. Its ``batch_sampler.start_iter`` may be set before iteration starts.
    """
    return SampleLoader(
        SliceDataset(records, mapper),
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
        prefetch_factor=4 if num_workers else None,
    )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Build the loader of a dataset's records, one by one, shared out among the ranks."""
    records = DatasetFromList(load_test_records(cfg, dataset_name))
    return DataLoader(
        records, sampler=InferenceSampler(len(records)), batch_size=1, collate_fn=trivial_batch_collator
    )
