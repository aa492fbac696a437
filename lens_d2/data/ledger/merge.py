"""Merging a ledger into dataset records."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd
from detectron2.data import DatasetCatalog

from ...structures.records import make_lesion
from ...structures.status import STATUS_OF_RECORD, BoxStatus
from ..datasets.catalog import register_derived
from .table import continues_given, read_ledger

# Status in a record (lens_d2.structures.records.STATUSES) of a row with a status. A rejected lesion is certainly
# none; more slices of a given lesion, if rejected, are merely no good boxes of it, and are left out.
RECORD_STATUS = {
    "annotation": "mined",
    "accepted": "accepted",
    "uncertain": "uncertain",
    "unsure": "unsure",
    "hard_negative": "hard_negative",
    "rejected": "hard_negative",
}
# Of the statuses of a lesion's rows the first is the lesion's: one that a radiologist has accepted is sure.
PRECEDENCE = ("accepted", "mined", "uncertain", "unsure", "hard_negative")


def apply_ledger(records: Sequence[dict], ledger: pd.DataFrame, uncertain_as_lesion: bool = False) -> list[dict]:
    """Merge mined boxes into dataset records.

    Rows that continue a given lesion add boxes to it, so that it remains one 3D lesion; others become new lesions.
    A mined lesion with an estimated precision has it as ``weight``.

    Args:
        records: of the dataset; not changed.
        ledger: as :func:`read_ledger` gives it. Rows of other sub-volumes than the records' are left out.
        uncertain_as_lesion: whether uncertain regions count as lesions ("Ignored as GT", Table IV).

    Returns:
        records of the same sub-volumes, in the same order.
    """
    rows_of = _rows_by_volume(ledger, uncertain_as_lesion)
    merged = []
    for record in records:
        rows = rows_of.get(record["volume"])
        merged.append(record if rows is None else {**record, "lesions": _merge(record["lesions"], rows)})
    return merged


def ledger_records(records: Sequence[dict], ledger: pd.DataFrame) -> list[dict]:
    """Records of the sub-volumes that a ledger names, with its boxes only."""
    rows_of = _rows_by_volume(ledger, False)
    return [{**r, "lesions": _merge([], rows_of[r["volume"]])} for r in records if r["volume"] in rows_of]


def register_ledger(name: str, path: str | os.PathLike, dataset: str, given: bool = False) -> None:
    """Register a ledger as a Detectron2 dataset of its own.

    Args:
        name: of the new dataset.
        path: of the ledger; it is read when the dataset is loaded.
        dataset: registered name of the mined dataset.
        given: whether the new dataset has the given annotations of the mined one as well.
    """

    def load() -> list[dict]:
        records = DatasetCatalog.get(dataset)
        ledger = read_ledger(path, records)
        return apply_ledger(records, ledger) if given else ledger_records(records, ledger)

    register_derived(name, dataset, load)


def record_ids(lesion: str) -> set[str]:
    """Ids that boxes of a ledger's lesion may have in a record: slices of another status have one of their own."""
    return {lesion, *(f"{lesion}/{status}" for status in PRECEDENCE)}


def _rows_by_volume(ledger: pd.DataFrame, uncertain_as_lesion: bool) -> dict[str, pd.DataFrame]:
    refused = (ledger["status"] == "rejected") & continues_given(ledger)
    used = ledger[~refused]
    status = used["status"].map(RECORD_STATUS)
    if uncertain_as_lesion:
        status = status.replace("uncertain", "mined")
    return dict(tuple(used.assign(status=status).groupby("volume", sort=False)))


def _merge(lesions: list[dict], rows: pd.DataFrame) -> list[dict]:
    """Given lesions of one record with its mined boxes added; the order of the rows does not matter."""
    merged = {lesion["id"]: lesion for lesion in lesions}
    groups = rows.groupby(["lesion", "status"], sort=False)
    for (name, status), group in sorted(groups, key=lambda item: PRECEDENCE.index(item[0][1])):
        boxes = group[["slice", "x1", "y1", "x2", "y2"]].values.tolist()
        if name in merged and STATUS_OF_RECORD[status] == BoxStatus.LESION:
            lesion = merged[name]
            boxes = sorted([*lesion["boxes"], *make_lesion(name, boxes)["boxes"]])
            merged[name] = {**lesion, "boxes": boxes}
        else:  # a lesion with slices of another status becomes two in the record
            own = name if name not in merged else f"{name}/{status}"
            merged[own] = make_lesion(own, sorted(boxes), status=status)
            precision = group["precision"].mean()
            if status == "mined" and precision < 1:  # not NaN
                merged[own]["weight"] = float(precision)
    return list(merged.values())
