"""A radiologist's verdicts on the proposals of a ledger (Lesion-Harvester, Section III-A: the volumes of V_M).

A proposal is a 3D lesion of the ledger: all rows of one ``lesion``. The radiologist sees the proposals on a page
(see :mod:`lens_d2.export.review_page`), which saves the verdicts as JSON:

    {"ledger": "ledger.parquet", "verdicts": {"<lesion>": {"verdict": "accepted", "boxes": "5f0c2a1b"}, ...}}

``boxes`` is a checksum of the boxes that were judged, so that a verdict is never applied to other boxes that a
later ledger has under the same name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...io.errors import DataError
from ...io.formats import load_json
from ...structures.boxes import hull
from .table import BOX, SCHEMA, read_ledger, slice_boxes_of

VERDICTS = ("accepted", "rejected", "unsure")
VERDICT = re.compile(rb"\b(accepted|rejected|unsure)\b", re.IGNORECASE)  # in a table that cannot be read
JUDGED = "/judged-"  # and round and checksum: end of a lesion's name that later rounds keep


@dataclass(frozen=True)
class Proposal:
    """A 3D lesion of a ledger, to be judged.

    Attributes:
        id: the ledger's ``lesion``.
        volume: name of the sub-volume.
        slice_boxes: (n, 6) z, x1, y1, x2, y2, score, in order of z, in the volume frame; score 0 if the ledger has
            none.
        score: the highest; NaN if the ledger has none.
        status, strategy, round, distance, annotation, precision, disagreement, expert: of the row with the highest
            score; see :class:`.table.LedgerRow`.
        checksum: of the boxes.
    """

    id: str
    volume: str
    slice_boxes: np.ndarray
    score: float
    status: str
    strategy: str
    round: int
    distance: float
    annotation: str
    checksum: str
    precision: float = np.nan
    disagreement: float = np.nan
    expert: str = ""

    @classmethod
    def of_rows(cls, rows: pd.DataFrame) -> Proposal:
        """Make the proposal of the rows of one lesion."""
        rows = rows.sort_values("slice", kind="stable")
        best = rows.iloc[int(rows["score"].fillna(0.0).to_numpy().argmax())]
        return cls(
            id=best["lesion"],
            volume=best["volume"],
            slice_boxes=slice_boxes_of(rows, missing_score=0.0),
            score=float(best["score"]),
            status=best["status"],
            strategy=best["strategy"],
            round=int(best["round"]),
            distance=float(best["distance"]),
            annotation=best["annotation"],
            checksum=_checksum(rows),
            precision=float(best["precision"]),
            disagreement=float(best["disagreement"]),
            expert=best["expert"],
        )

    @property
    def box3d(self) -> tuple[float, ...]:
        """x1, y1, z1, x2, y2, z2 around all boxes; first and last slice."""
        return tuple(hull(self.slice_boxes).tolist())


def proposals_of(ledger: pd.DataFrame, judged: bool = False) -> list[Proposal]:
    """The proposals of a ledger, by decreasing score, those without a score last.

    Args:
        ledger: as :func:`lens_d2.data.ledger.table.read_ledger` gives it.
        judged: whether to include proposals that have a verdict.
    """
    proposals = [Proposal.of_rows(rows) for _, rows in ledger.groupby("lesion", sort=True)]
    wanted = [each for each in proposals if judged or each.status not in VERDICTS]
    return sorted(wanted, key=lambda each: -np.nan_to_num(each.score, nan=-1.0))


def read_verdicts(path: str | os.PathLike) -> dict[str, dict]:
    """Read the file of verdicts that the page saves: ``{id of the proposal: {"verdict": ..., "boxes": ...}}``.

    Raises:
        DataError: it cannot be read, is no such file, has a proposal twice, or a verdict is none of
            :data:`VERDICTS`.
    """
    content = load_json(path)
    verdicts = content.get("verdicts") if isinstance(content, dict) else None
    if not isinstance(verdicts, dict):
        raise DataError(path, 'no file of verdicts: it has no "verdicts"')
    for name, entry in verdicts.items():
        verdict = entry.get("verdict") if isinstance(entry, dict) else None
        if verdict not in VERDICTS:
            raise DataError(path, f"the verdict on {name!r} is {verdict!r}, none of {', '.join(VERDICTS)}")
    return verdicts


def apply_verdicts(
    ledger: pd.DataFrame, verdicts: Mapping[str, Mapping], path: str | os.PathLike
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Set the status of the judged proposals' rows to their verdicts.

    Args:
        ledger: as :func:`lens_d2.data.ledger.table.read_ledger` gives it; not changed.
        verdicts: of :func:`read_verdicts`.
        path: of the verdicts, named by errors.

    Returns:
        the ledger with its new statuses, and the number of proposals with each verdict.

    Raises:
        DataError: the ledger has no such proposal, or other boxes under its name.
    """
    rows_of = ledger.groupby("lesion", sort=False).indices
    status = ledger["status"].to_numpy(dtype=object, copy=True)
    counts = dict.fromkeys(VERDICTS, 0)
    for name, entry in verdicts.items():
        if name not in rows_of:
            raise DataError(path, f"the ledger has no proposal {name!r}")
        rows, seen = rows_of[name], entry.get("boxes")
        if seen is not None and seen != _checksum(ledger.iloc[rows]):
            raise DataError(path, f"the ledger has other boxes for {name!r} than those that were judged")
        status[rows] = entry["verdict"]
        counts[entry["verdict"]] += 1
    return ledger.assign(status=status.astype(str)), counts


def judged_rows(paths: Sequence[str | os.PathLike], records: Sequence[dict]) -> pd.DataFrame:
    """Read the rows of ledgers that have a verdict, to be known to another round of mining.

    New lesions get names of their own, as the next round may give the same ones again. Rejected slices of given
    lesions, which say nothing but that a box is not good, are left out.

    Args:
        paths: of the ledgers, the newest last: of several verdicts on the same lesion the last holds.
        records: of the dataset, with given annotations only.

    Raises:
        DataError: a ledger is unsound, or contradicts the dataset.
    """
    given = _given(records)
    parts = [_judged(read_ledger(path, records), given) for path in paths]
    parts = parts or [pd.DataFrame(columns=SCHEMA.names)]
    return _without_rejected_marks(pd.concat(parts, ignore_index=True).drop_duplicates("id", keep="last"), given)


def refuse_to_lose_verdicts(path: str | os.PathLike, records: Sequence[dict], judged: pd.DataFrame) -> None:
    """Refuse to replace a ledger by one that lacks verdicts of a radiologist that it has.

    Args:
        path: of the ledger; if it is absent, or damaged with no verdict visible in it, nothing is refused.
        records: of the dataset, with given annotations only.
        judged: the rows with a verdict that the new ledger will have, as :func:`judged_rows` gives them.

    Raises:
        DataError: tells how many of its lesions would lose their verdict, or what keeps them from being read.
    """
    try:
        given = _given(records)
        own = _without_rejected_marks(_judged(read_ledger(path), given), given)
    except DataError as error:
        if Path(path).is_file() and VERDICT.search(Path(path).read_bytes()):
            fault = f"{error.fault}; mined anew it would lose its verdicts: put it right, or move it"
            raise DataError(path, fault) from None
        return
    kept = set(zip(judged["id"], judged["status"], strict=True))
    lost = [pair not in kept for pair in zip(own["id"], own["status"], strict=True)]
    if any(lost):
        fault = f"mined anew it would lose the verdicts on {own['lesion'][lost].nunique()} lesions"
        raise DataError(path, f"{fault}: move it, and name it in MINING.REVIEWED, or remove it")


def _given(records: Sequence[dict]) -> set[str]:
    """Ids of the given lesions."""
    return {lesion["id"] for record in records for lesion in record["lesions"]}


def _judged(ledger: pd.DataFrame, given: Collection[str]) -> pd.DataFrame:
    """The rows with a verdict, new lesions under names of their own."""
    own = ledger[ledger["status"].isin(VERDICTS)]
    named = own["lesion"].isin(given) | own["lesion"].str.contains(JUDGED, regex=False)
    sums = {lesion: _checksum(rows) for lesion, rows in own[~named].groupby("lesion", sort=False)}
    name = own["lesion"] + JUDGED + own["round"].astype(str) + "-" + own["lesion"].map(sums).astype(str)
    lesion = own["lesion"].where(named, name)
    return own.assign(lesion=lesion, id=lesion + "@" + own["slice"].astype(str))


def _without_rejected_marks(judged: pd.DataFrame, given: Collection[str]) -> pd.DataFrame:
    """The rows that later rounds keep: a rejected slice of a given lesion says only that its box is not good."""
    return judged[~((judged["status"] == "rejected") & judged["lesion"].isin(given))]


def _checksum(rows: pd.DataFrame) -> str:
    """Checksum of a proposal's boxes to a hundredth of a pixel, so that CSV and Parquet agree."""
    rows = rows.sort_values("slice", kind="stable")
    boxes = (rows[BOX].to_numpy(dtype=np.float64) * 100).round().astype(np.int64)
    text = json.dumps([rows["volume"].iloc[0], rows["slice"].tolist(), boxes.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
