"""Merging a ledger into dataset records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

import pandas as pd
from detectron2.data import DatasetCatalog

from ...structures.records import make_lesion
from ...structures.status import STATUS_OF_RECORD, BoxStatus
from ..datasets.catalog import register_derived
from .table import continues_given, read_ledger

# Status in a record (lens_d2.structures.records.STATUSES) for each status of a row. A rejected lesion is known not
# to be one; rejected further slices of a given lesion merely have poor boxes of it, and are left out.
RECORD_STATUS = {
    "annotation": "mined",
    "accepted": "accepted",
    "uncertain": "uncertain",
    "unsure": "unsure",
    "hard_negative": "hard_negative",
    "rejected": "hard_negative",
}
# If a lesion's rows differ in status, those of the first status keep its id in the record.
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
    found, merged = _mined_lesions(ledger, uncertain_as_lesion), []
    for record in records:
        mined = found.get(record["volume"])
        merged.append(record if mined is None else {**record, "lesions": _merge(record["lesions"], mined)})
    return merged


def ledger_records(records: Sequence[dict], ledger: pd.DataFrame) -> list[dict]:
    """Records of the sub-volumes that a ledger names, with its boxes only."""
    found = _mined_lesions(ledger, False)
    return [{**r, "lesions": _merge([], found[r["volume"]])} for r in records if r["volume"] in found]


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


@dataclass
class _MinedLesion:
    """Slices of one status of a ledger's lesion.

    Attributes:
        name: of the lesion.
        status: in a record.
        boxes: z, x1, y1, x2, y2 of each.
        precisions: estimated, of the boxes that have one.
    """

    name: str
    status: str
    boxes: list[list[float]] = field(default_factory=list)
    precisions: list[float] = field(default_factory=list)


def _mined_lesions(ledger: pd.DataFrame, uncertain_as_lesion: bool) -> dict[str, list[_MinedLesion]]:
    """Lesions by the names of their sub-volumes, the surest statuses first."""
    refused = (ledger["status"] == "rejected") & continues_given(ledger)
    used = ledger[~refused]
    status = used["status"].map(RECORD_STATUS)
    if uncertain_as_lesion:
        status = status.replace("uncertain", "mined")
    found: dict[str, dict[tuple[str, str], _MinedLesion]] = {}
    columns = (used["volume"], used["lesion"], status, used["precision"])
    boxes = used[["slice", "x1", "y1", "x2", "y2"]].values.tolist()
    for volume, *key, precision, box in zip(*(column.tolist() for column in columns), boxes, strict=True):
        of_volume = found.setdefault(volume, {})
        if (name := tuple(key)) not in of_volume:
            of_volume[name] = _MinedLesion(*name)
        of_volume[name].boxes.append(box)
        if precision == precision:  # not NaN
            of_volume[name].precisions.append(precision)
    return {
        volume: sorted(lesions.values(), key=lambda mined: PRECEDENCE.index(mined.status))
        for volume, lesions in found.items()
    }


def _merge(lesions: list[dict], found: Sequence[_MinedLesion]) -> list[dict]:
    """Given lesions of one record with its mined boxes added; the order of the rows does not matter."""
    merged = {lesion["id"]: lesion for lesion in lesions}
    for mined in found:
        name, status = mined.name, mined.status
        if name in merged and STATUS_OF_RECORD[status] == BoxStatus.LESION:
            lesion = merged[name]
            boxes = sorted([*lesion["boxes"], *make_lesion(name, mined.boxes)["boxes"]])
            merged[name] = {**lesion, "boxes": boxes}
        else:  # a lesion with slices of another status becomes two in the record
            own = name if name not in merged else f"{name}/{status}"
            merged[own] = make_lesion(own, sorted(mined.boxes), status=status)
            if status == "mined" and mined.precisions and (precision := fmean(mined.precisions)) < 1:
                merged[own]["weight"] = precision
    return list(merged.values())
