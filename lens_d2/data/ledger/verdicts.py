"""A reader's verification of what a ledger proposes (Lesion-Harvester, Section III-A: the volumes of V_M).

A proposal is a 3D lesion of the ledger: all rows of one ``lesion``. The reader sees the proposals on a page, see
:mod:`lens_d2.export.review_page`, and the verdicts come back as JSON:

    {"ledger": "ledger.parquet", "verdicts": {"<lesion>": {"verdict": "accepted", "boxes": "5f0c2a1b"}, ...}}

``boxes`` is a checksum of the boxes that were looked at, so that a verdict never goes to other boxes that a later
ledger has under the same name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...io.errors import DataError
from ...structures.boxes import hull
from .table import BOX

VERDICTS = ("accepted", "rejected", "unsure")


@dataclass(frozen=True)
class Proposal:
    """A 3D lesion of a ledger, to be judged.

    Attributes:
        id: the ledger's ``lesion``. volume: name of the sub-volume.
        slice_boxes: (n, 6) z, x1, y1, x2, y2, score, in order of z, in the volume frame; the score 0 where the
            ledger has none.
        score: the highest, NaN where the ledger has none.
        status: in the ledger, of the row with the highest score. strategy, round, distance, annotation: the same
            row's.
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

    @classmethod
    def of_rows(cls, rows: pd.DataFrame) -> Proposal:
        """The proposal that the rows of one lesion are."""
        rows = rows.sort_values("slice", kind="stable")
        best = rows.iloc[int(rows["score"].fillna(0.0).to_numpy().argmax())]
        return cls(
            id=best["lesion"],
            volume=best["volume"],
            slice_boxes=rows[["slice", *BOX, "score"]].fillna({"score": 0.0}).to_numpy(dtype=np.float64),
            score=float(best["score"]),
            status=best["status"],
            strategy=best["strategy"],
            round=int(best["round"]),
            distance=float(best["distance"]),
            annotation=best["annotation"],
            checksum=_checksum(rows),
        )

    @property
    def box3d(self) -> tuple[float, ...]:
        """x1, y1, z1, x2, y2, z2 around all boxes; first and last slice."""
        return tuple(hull(self.slice_boxes).tolist())


def proposals_of(ledger: pd.DataFrame, judged: bool = False) -> list[Proposal]:
    """The proposals of a ledger, the highest scores first, those without a score last.

    Args:
        ledger: as :func:`lens_d2.mining.read_ledger` gives it.
        judged: whether those that have a reader's verdict are among them.
    """
    proposals = [Proposal.of_rows(rows) for _, rows in ledger.groupby("lesion", sort=True)]
    wanted = [each for each in proposals if judged or each.status not in VERDICTS]
    return sorted(wanted, key=lambda each: -np.nan_to_num(each.score, nan=-1.0))


def read_verdicts(path: str | os.PathLike) -> dict[str, dict]:
    """The verdicts of a file that the page has given, by the id of the proposal.

    Raises:
        DataError: it cannot be read, is no such file, or a verdict is none of :data:`VERDICTS`.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"no JSON ({error})") from None
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
    """Give the rows of the judged proposals their verdicts as status; a rejected hard negative stays one.

    Args:
        ledger: as :func:`lens_d2.mining.read_ledger` gives it; it is not changed.
        verdicts: of :func:`read_verdicts`. path: that errors name.

    Returns:
        the ledger with its new statuses; how many proposals have got each verdict.

    Raises:
        DataError: the ledger has no such proposal, or has other boxes under its name.
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
        confirmed = entry["verdict"] == "rejected" and (status[rows] == "hard_negative").all()
        status[rows] = "hard_negative" if confirmed else entry["verdict"]
        counts[entry["verdict"]] += 1
    return ledger.assign(status=status.astype(str)), counts


def _checksum(rows: pd.DataFrame) -> str:
    """Of where the boxes of a proposal are, to a hundredth of a pixel, so that CSV and Parquet agree."""
    rows = rows.sort_values("slice", kind="stable")
    boxes = (rows[BOX].to_numpy(dtype=np.float64) * 100).round().astype(np.int64)
    text = json.dumps([rows["volume"].iloc[0], rows["slice"].tolist(), boxes.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
