"""The sets of sub-volumes that a harvest works on, and whether its settings suit them."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode

from ...data.cache import build_cache
from ...data.ledger.table import read_ledger
from ...data.loader import load_records, share_of_dataset
from ...inference.rescoring import load_classifier
from ...inference.tracker import BoxTracker
from ...io.errors import DataError
from ..proposals import mined_datasets
from .measures import HarvestMeasure

logger = logging.getLogger(__name__)


class HarvestVolumes:
    """The sub-volumes of a harvest.

    Attributes:
        verified: records of V_M.
        partial: records of V_H, with the original marks.
        measure: measures sets of labels on V_H-test.
    """

    def __init__(self, cfg: CfgNode):
        """
        Raises:
            DataError: a set is not trained on, or a sub-volume is in V_M and in V_H.
        """
        keys = cfg.HARVEST
        for name in (keys.VERIFIED, *keys.DATASETS):
            if name not in cfg.DATASETS.TRAIN:
                raise DataError(name, "HARVEST.VERIFIED and HARVEST.DATASETS have to be among DATASETS.TRAIN")
        cache = build_cache(cfg)
        self.verified = share_of_dataset(cfg, keys.VERIFIED, load_records((keys.VERIFIED,), cache))
        names = keys.DATASETS or tuple(name for name in mined_datasets(cfg) if name != keys.VERIFIED)
        self.partial = [r for name in names for r in share_of_dataset(cfg, name, load_records((name,), cache))]
        twice = {r["volume"] for r in self.verified} & {r["volume"] for r in self.partial}
        if twice:
            raise DataError(min(twice), f"it is in HARVEST.VERIFIED ({keys.VERIFIED}) and in {', '.join(names)}")
        self.measure = HarvestMeasure(keys.TEST, load_records((keys.TEST,), cache), self.partial, keys.SAME_IOU)
        apart = {r["volume"] for r in self.measure.records} - {r["volume"] for r in self.partial}
        if apart:
            logger.warning(
                "%s: %d sub-volumes, such as %s, are not in V_H: earlier rounds' harvest does not count there",
                *(keys.TEST, len(apart), min(apart)),
            )

    def folds(self, number: int) -> dict[str, int]:
        """Fold of each of V_M's sub-volumes, from 0; all sub-volumes of a patient are in one fold.

        Args:
            number: of folds; 0: the dict is empty.
        """
        patients = sorted({record["patient"] for record in self.verified})
        return {r["volume"]: patients.index(r["patient"]) % number for r in self.verified} if number else {}

    @property
    def training(self) -> list[dict]:
        """Records of V_M and V_H."""
        return [*self.verified, *self.partial]

    @property
    def all(self) -> list[dict]:
        """Records of all sets, each sub-volume once."""
        return list({r["volume"]: r for r in [*self.measure.records, *self.training]}.values())


def check_settings(cfg: CfgNode, volumes: HarvestVolumes) -> None:
    """Refuse settings with which harvesting would fail, before anything is trained.

    Raises:
        DataError: names the key, its value and what is allowed; or a classifier or ledger cannot be read.
        ValueError: an IoU of the tracker is out of range.
    """
    keys, patients = cfg.HARVEST, len({record["patient"] for record in volumes.verified})
    faults = {
        "HARVEST.FOLDS": keys.FOLDS not in (0, *range(2, patients + 1))
        and f"{keys.FOLDS}, where {keys.VERIFIED} has {patients} patients: 0, or from 2 to as many as these",
        "HARVEST.PRECISION": keys.PRECISION >= 1
        and f"{keys.PRECISION}, which no threshold exceeds; below 1 is needed",
        "HARVEST.OTHER_LEDGERS": not all(isinstance(x, tuple | list) and len(x) == 2 for x in keys.OTHER_LEDGERS)
        and f"{keys.OTHER_LEDGERS}; pairs of a name and a ledger, as (('MGTM-SLLP', 'ledger.parquet'),)",
        "DATASETS.LEDGER": cfg.DATASETS.LEDGER
        and "harvesting makes its own; a ledger of V_M may be registered as a dataset (docs/harvesting.md)",
    }
    for name, fault in faults.items():
        if fault:
            raise DataError(name, fault)
    BoxTracker.from_config(cfg, keys.SCORE_THRESH)
    for _, path in keys.OTHER_LEDGERS:
        read_ledger(path)
    if cfg.MODEL.LPC.WEIGHTS:
        load_classifier(cfg, "LPC")
