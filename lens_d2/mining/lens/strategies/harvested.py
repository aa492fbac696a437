"""Lesion-Harvester's lesions beside what LENS mines: both papers in one ledger."""

from __future__ import annotations

import numpy as np
import pandas as pd
from detectron2.config import configurable

from ....data.ledger.table import continues_given, read_ledger, slice_boxes_of
from ....io.errors import DataError
from ....structures.known_boxes import KnownBoxes
from ....structures.status import BoxStatus
from .strategy import STRATEGIES, Finding, Patient, PatientVolume, Strategy


@STRATEGIES.register()
class Harvested(Strategy):
    """Takes the new lesions of a harvest's ledger, and its hard negatives if they are wanted.

    Harvested lesions keep the precision that their round estimated on V_M. Hard negatives, which the classifier
    has rejected, are taken only if every expert rejects them, too. A lesion that a radiologist has accepted is
    certain, and a rejected one is a hard negative.
    """

    @configurable
    def __init__(
        self,
        *,
        rows: pd.DataFrame,
        statuses: tuple[str, ...] = ("annotation",),
        rejected_below: float = 0.5,
        iou: float = 0.5,
    ):
        """
        Args:
            rows: of a ledger, as :func:`lens_d2.data.ledger.table.read_ledger` gives it; more slices of given
                lesions are left out.
            statuses: of the rows that are taken, "annotation" (accepted rows count as such) or "hard_negative";
                what a radiologist has rejected is always taken as a hard negative.
            rejected_below: a hard negative is dropped if any expert gives a box on it at least this score.
            iou: theta, above which boxes overlap.
        """
        self.rejected_below, self.iou = rejected_below, iou
        rows = _judged(rows[~continues_given(rows)])
        is_refused = (rows["status"] == "hard_negative") & (rows["precision"] == 0)
        own = rows[rows["status"].isin(statuses) | is_refused]
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
        return {
            "rows": read_ledger(keys.LEDGER),
            "statuses": tuple(keys.STATUSES),
            "rejected_below": keys.REJECTED_BELOW,
            "iou": cfg.MINING.IOU,
        }

    def __call__(self, patient: Patient) -> list[Finding]:
        """Mine one patient; see :class:`Strategy`."""
        findings = []
        for volume in patient:
            own = [_finding(rows) for rows in self.lesions.get(volume.record["volume"], ())]
            findings += [
                x
                for x in own
                if x.status != "hard_negative" or x.precision == 0 or self._all_reject(volume, x.slice_boxes)
            ]
        return sorted(findings, key=lambda x: (x.status == "hard_negative", -x.slice_boxes[:, 5].max()))

    def _all_reject(self, volume: PatientVolume, slice_boxes: np.ndarray) -> bool:
        """Whether no expert is sure of a box there."""
        negative = KnownBoxes()
        negative.add("", slice_boxes, BoxStatus.HARD_NEGATIVE)
        for expert in volume.experts:
            found = volume.detections[expert].slice_boxes
            sure = found[found[:, 5] >= self.rejected_below]
            if (negative.largest_overlap(sure) > self.iou).any():
                return False
        return True


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the verdicts as precision: 1 for accepted lesions, 0 for rejected ones.

    A lesion that is rejected on some slices only keeps the others.
    """
    accepted, rejected = rows["status"] == "accepted", rows["status"] == "rejected"
    status = rows["status"].mask(accepted, "annotation").mask(rejected, "hard_negative")
    precision = rows["precision"].mask(accepted, 1.0).mask(rejected, 0.0)
    stays = ~rejected | rejected.groupby([rows["volume"], rows["lesion"]]).transform("all")
    return rows.assign(status=status, precision=precision)[stays]


def _finding(rows: pd.DataFrame) -> Finding:
    first, boxes = rows.iloc[0], slice_boxes_of(rows, missing_score=1.0)
    return Finding(
        first["volume"],
        first["lesion"],
        boxes,
        first["status"],
        precision=float(rows["precision"].mean()),
        disagreement=float(first["disagreement"]),
        expert=first["expert"],
    )
