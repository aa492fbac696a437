"""Data loaders: batches of slices for training, whole sub-volumes for inference."""

from __future__ import annotations

from collections.abc import Iterable

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetFromList, MetadataCatalog
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from torch.utils.data import DataLoader, Dataset

from ..mining import apply_ledger, check_ledger, read_ledger
from .mapper import SliceMapper
from .sampler import SingleDatasetBatchSampler, SliceIndex, SlicePool


class SliceDataset(Dataset):
    """Samples of slices, indexed by :class:`SliceIndex`."""

    def __init__(self, records: list[dict], mapper: SliceMapper):
        self.records = DatasetFromList(records)
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SliceIndex) -> dict:
        return self.mapper(self.records[index.record], index.slice, index.seed)


def build_batch_sampler(cfg: CfgNode, records: list[dict]) -> SingleDatasetBatchSampler:
    """The stream of batches over the records of all training datasets, each batch from one of them."""
    of_dataset: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        of_dataset.setdefault(record["dataset"], []).append(index)
    partly_labelled = {
        metadata.expert for metadata in map(MetadataCatalog.get, cfg.DATASETS.TRAIN) if not metadata.fully_labelled
    }
    pools = [
        SlicePool.from_records(records, indices, name not in partly_labelled or cfg.DATASETS.UNLABELED_SLICES)
        for name, indices in of_dataset.items()
    ]
    return SingleDatasetBatchSampler(
        pools,
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.DATASETS.NEGATIVE_RATIO,
        max(cfg.SEED, 0),
        cfg.DATASETS.HARD_NEGATIVE_RATIO,
    )


def load_records(names: Iterable[str]) -> list[dict]:
    """The records of several registered datasets, one after another."""
    return [record for name in names for record in DatasetCatalog.get(name)]


def load_training_records(cfg: CfgNode) -> list[dict]:
    """The records of ``DATASETS.TRAIN``, with the mined boxes of ``DATASETS.LEDGER`` where that is given.

    Raises:
        DataError: the ledger contradicts itself or the datasets.
    """
    records = load_records(cfg.DATASETS.TRAIN)
    if not cfg.DATASETS.LEDGER:
        return records
    ledger = read_ledger(cfg.DATASETS.LEDGER)
    check_ledger(ledger, records, cfg.DATASETS.LEDGER)
    return apply_ledger(records, ledger, cfg.DATASETS.UNCERTAIN_AS_LESION)


def build_train_loader(cfg: CfgNode) -> DataLoader:
    """Endless batches of ``SOLVER.IMS_PER_BATCH`` samples over all ranks; this rank's share of each.

    Its ``batch_sampler.start_iter`` may be set before iteration starts.
    """
    records = load_training_records(cfg)
    workers = cfg.DATALOADER.NUM_WORKERS
    return DataLoader(
        SliceDataset(records, SliceMapper(cfg, is_train=True)),
        batch_sampler=build_batch_sampler(cfg, records),
        num_workers=workers,
        collate_fn=trivial_batch_collator,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """The records of a dataset's sub-volumes one by one, shared out among the ranks."""
    records = DatasetFromList(load_records((dataset_name,)))
    return DataLoader(
        records, sampler=InferenceSampler(len(records)), batch_size=1, collate_fn=trivial_batch_collator
    )
