"""Counts of the training data before and after each strategy: the columns of LENS's Table III."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import pandas as pd
from tabulate import tabulate

from ...structures.status import STATUS_OF_RECORD, BoxStatus
from .merge import RECORD_STATUS

PAPER = ("CrossSlice", "IntraPatient", "CrossDataset")  # strategies in the paper's order


@dataclass(frozen=True)
class TrainingCounts:
    """One row of Table III.

    Attributes:
        name: of the last strategy that is counted.
        lesions: 3D ground truths.
        boxes: 2D ground truths.
        uncertain: 2D uncertain regions on the training slices.
        slices: training slices: those with a lesion; with unlabelled slices, all.
    """

    name: str
    lesions: int
    boxes: int
    uncertain: int
    slices: int


def count_training_data(
    records: Sequence[dict], ledger: pd.DataFrame, strategies: Sequence[str]
) -> list[TrainingCounts]:
    """Count the training data of a partially labelled dataset.

    Args:
        records: with given annotations only.
        ledger: as :func:`read_ledger` gives it.
        strategies: in their order; see :func:`strategies_of`.

    Returns:
        counts without mining, after each strategy, and with slices without any box as well.
    """
    ledger = ledger[["volume", "slice", "lesion", "strategy", "status"]].copy()
    ledger["status"] = ledger["status"].map(RECORD_STATUS).map(STATUS_OF_RECORD)
    given = _given(records)
    total = sum(record["num_slices"] for record in records)
    rows = [_count("No mining", given)]
    for number, strategy in enumerate(strategies, start=1):
        mined = ledger[ledger["strategy"].isin(strategies[:number])]
        rows.append(_count(f"+ {strategy}", pd.concat([given, mined], ignore_index=True)))
    uncertain = int((ledger["status"] == BoxStatus.UNCERTAIN).sum())
    return [*rows, TrainingCounts("+ unlabelled slices", rows[-1].lesions, rows[-1].boxes, uncertain, total)]


def add_counts(counts: Sequence[TrainingCounts], others: Sequence[TrainingCounts]) -> list[TrainingCounts]:
    """Add the counts of two sets of sub-volumes."""
    return [
        TrainingCounts(a.name, *(getattr(a, key) + getattr(b, key) for key in _NUMBERS))
        for a, b in zip(counts, others, strict=True)
    ]


_NUMBERS = [field.name for field in fields(TrainingCounts) if field.name != "name"]


def strategies_of(ledger: pd.DataFrame) -> list[str]:
    """The strategies that a ledger names: the paper's in its order, then others."""
    found = ledger["strategy"].unique().tolist()
    return sorted(found, key=lambda name: PAPER.index(name) if name in PAPER else len(PAPER))


def format_counts(counts: Sequence[TrainingCounts]) -> str:
    """The counts as a table in Markdown."""
    header = ("Method", "# 3D GT", "# 2D GT", "# 2D uncertain", "# Training slices")
    rows = [(c.name, c.lesions, c.boxes, c.uncertain, c.slices) for c in counts]
    return tabulate(rows, header, tablefmt="pipe")


def _given(records: Sequence[dict]) -> pd.DataFrame:
    rows = [
        (record["volume"], int(box[0]), lesion["id"], int(STATUS_OF_RECORD[lesion["status"]]))
        for record in records
        for lesion in record["lesions"]
        for box in lesion["boxes"]
    ]
    return pd.DataFrame(rows, columns=["volume", "slice", "lesion", "status"])


def _count(name: str, boxes: pd.DataFrame) -> TrainingCounts:
    truth = boxes[boxes["status"] == BoxStatus.LESION]
    slices = truth[["volume", "slice"]].drop_duplicates()
    uncertain = boxes.loc[boxes["status"] == BoxStatus.UNCERTAIN, ["volume", "slice"]]
    return TrainingCounts(
        name,
        lesions=truth["lesion"].nunique(),
        boxes=len(truth),
        uncertain=len(uncertain.merge(slices)),
        slices=len(slices),
    )
