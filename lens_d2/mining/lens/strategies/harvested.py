"""What Lesion-Harvester has harvested, beside what LENS mines: both papers in one ledger."""

from __future__ import annotations

import pandas as pd
from detectron2.config import configurable

from ....data.ledger.table import BOX, read_ledger
from ....io.errors import DataError
from .strategy import STRATEGIES, Finding, Patient, Strategy


@STRATEGIES.register()
class Harvested(Strategy):
    """Takes the new lesions of a harvest's ledger, and its hard negatives if they are wanted.

    Harvested lesions have the precision that their round has estimated on V_M.
    """

    @configurable
    def __init__(self, *, rows: pd.DataFrame, statuses: tuple[str, ...] = ("annotation",)):
        """
        Args:
            rows: of a ledger, as :func:`lens_d2.data.ledger.table.read_ledger` gives it; more slices of given
                lesions are left out.
            statuses: of the rows that are taken.
        """
        own = rows[rows["status"].isin(statuses) & (rows["annotation"] == "")]
        self.lesions = {
            volume: [lesion for _, lesion in of_volume.groupby("lesion", sort=False)]
            for volume, of_volume in own.groupby("volume", sort=False)
        }

    @classmethod
    def from_config(cls, cfg):
        """Arguments of the constructor, from a config.

        Raises:
            DataError: ``MINING.HARVESTED.LEDGER`` is empty or not readable.
        """
        keys = cfg.MINING.HARVESTED
        if not keys.LEDGER:
            fault = (
                "empty: Harvested needs the ledger of a round, as output/harvester/harvest/round_3/ledger.parquet"
            )
            raise DataError("MINING.HARVESTED.LEDGER", fault)
        return {"rows": read_ledger(keys.LEDGER), "statuses": tuple(keys.STATUSES)}

    def __call__(self, patient: Patient) -> list[Finding]:
        """Mine one patient; see :class:`Strategy`."""
        names = [volume.record["volume"] for volume in patient]
        findings = [_finding(rows) for name in names for rows in self.lesions.get(name, ())]
        return sorted(findings, key=lambda x: (x.status == "hard_negative", -x.slice_boxes[:, 5].max()))


def _finding(rows: pd.DataFrame) -> Finding:
    first, boxes = rows.iloc[0], rows[["slice", *BOX, "score"]].fillna({"score": 1.0}).to_numpy(dtype=float)
    return Finding(
        first["volume"],
        first["lesion"],
        boxes,
        first["status"],
        precision=float(rows["precision"].mean()),
        disagreement=float(first["disagreement"]),
        expert=first["expert"],
    )
