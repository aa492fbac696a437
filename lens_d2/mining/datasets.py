"""Which datasets are mined."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..data.cache import build_cache
from ..data.loader import load_records
from ..io.errors import DataError


def mined_datasets(cfg: CfgNode) -> tuple[str, ...]:
    """Names of the datasets that are mined: ``MINING.DATASETS``, or the partially labelled training ones.

    Raises:
        DataError: there is none.
    """
    partial = tuple(name for name in cfg.DATASETS.TRAIN if not MetadataCatalog.get(name).fully_labelled)
    names = tuple(cfg.MINING.DATASETS) or partial
    if not names:
        raise DataError("DATASETS.TRAIN", "no dataset is partially labelled, and MINING.DATASETS names none")
    return names


def mined_records(cfg: CfgNode) -> list[dict]:
    """Records of the datasets that are mined, with their given annotations."""
    return load_records(mined_datasets(cfg), build_cache(cfg))
