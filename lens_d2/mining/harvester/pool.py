"""The pool of harvested 3D proposals: for each lesion, the proposal with the highest s_g (Eq. 5)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
import pandas as pd
import pyarrow as pa

from ...data.ledger.table import LedgerRow, continues_given, slice_boxes_of
from ...data.ledger.verdicts import VERDICTS
from ...structures.detections import VolumeDetections
from ...structures.known_boxes import KnownBoxes
from ...structures.status import BoxStatus

STRATEGY = "LesionHarvester"


@dataclass(frozen=True, eq=False)
class HarvestedLesion:
    """A 3D proposal that training uses.

    Attributes:
        volume: name of the sub-volume.
        round: that found it, from 1.
        number: of the proposal in its volume.
        slice_boxes: (k, 6) z, x1, y1, x2, y2, s_g of the slice; 0 if nothing was detected there.
        generator: s_g, its highest slice score.
        classifier: s_c.
        annotation: id of the given mark that it hits, or "".
        status: of the ledger: "annotation", "hard_negative", or a radiologist's verdict.
        name: id of the lesion in the ledger, if it does not follow from the fields above.
        precision: share of lesions among the proposals of V_M with this score s, or NaN.
    """

    volume: str
    round: int
    number: int
    slice_boxes: np.ndarray
    generator: float
    classifier: float
    annotation: str = ""
    status: str = "annotation"
    name: str = ""
    precision: float = float("nan")

    @property
    def is_lesion(self) -> bool:
        """Whether it is a lesion in training."""
        return self.status in ("annotation", "accepted")

    @property
    def score(self) -> float:
        """s = s_g * s_c (Eq. 7)."""
        return self.generator * self.classifier

    @property
    def lesion(self) -> str:
        """Id of the lesion in the ledger."""
        kind = "negative" if self.status == "hard_negative" else "lesion"
        return self.annotation or self.name or f"{self.volume}/{kind}-{self.round}-{self.number}"

    @property
    def best_slice(self) -> np.ndarray:
        """(6,) z, x1, y1, x2, y2, s_g of the slice with the highest score, which joins training."""
        return self.slice_boxes[self.slice_boxes[:, 5].argmax()]

    def rows(self, slices: Container[int]) -> list[LedgerRow]:
        """Ledger rows of its boxes on these slices, where it was detected."""
        detected = self.slice_boxes[self.slice_boxes[:, 5] > 0]
        return [self._row(int(z), box, score) for z, *box, score in detected.tolist() if int(z) in slices]

    def _row(self, z: int, box: Sequence[float], slice_score: float) -> LedgerRow:
        return LedgerRow(
            id=f"{self.lesion}@{z}",
            volume=self.volume,
            slice=z,
            x1=box[0],
            y1=box[1],
            x2=box[2],
            y2=box[3],
            lesion=self.lesion,
            strategy=STRATEGY,
            round=self.round,
            score=slice_score * self.classifier,
            distance=float("nan"),
            annotation=self.annotation,
            status=self.status,
            precision=self.precision,
            disagreement=abs(self.generator - self.classifier),
        )


def classifier_scores(found: VolumeDetections) -> np.ndarray:
    """(n,) s_c of proposals; 0 if they are not scored."""
    return np.zeros(len(found)) if found.fpr_scores is None else found.fpr_scores


def to_harvested(
    found: VolumeDetections, rows: Iterable[int], volume: str, number: int, annotations: Sequence[str] = (), **kw
) -> list[HarvestedLesion]:
    """Turn some of a volume's scored proposals into :class:`HarvestedLesion`.

    Args:
        found: with ``fpr_scores`` s_c.
        rows: of the wanted proposals.
        volume: name of the sub-volume.
        number: of the round.
        annotations: ids of the marks that they hit, in the order of ``rows``; empty: they hit none.
        kw: further fields, such as ``status``.
    """
    classifier = classifier_scores(found)
    return [
        HarvestedLesion(
            volume,
            number,
            int(row),
            found.boxes_of(row),
            float(found.scores[row]),
            float(classifier[row]),
            annotations[i] if annotations else "",
            **kw,
        )
        for i, row in enumerate(rows)
    ]


def with_verdicts(lesions: Iterable[HarvestedLesion], ledger: pd.DataFrame) -> list[HarvestedLesion]:
    """Enter a radiologist's verdicts into the pool: judged lesions and hard negatives have them as status.

    A lesion is rejected if all of its rows are; otherwise it loses the rejected slices. One accepted row, or mined
    ones that the radiologist has let stand, make it accepted. Its boxes are the ledger's.

    Args:
        lesions: of a round.
        ledger: of a round.
    """
    pool = {x.lesion: x for x in lesions}
    judged = ledger.loc[ledger["status"].isin(VERDICTS), "lesion"]
    for name, rows in ledger[ledger["lesion"].isin(judged)].groupby("lesion"):
        kept = rows[rows["status"] != "rejected"]
        lesion = pool.get(name) or _of_rows(name, rows)
        if len(kept):
            lesion = _corrected(lesion, kept, set(rows["slice"]) - set(kept["slice"]))
        pool[name] = replace(lesion, status=_verdict(set(rows["status"])))
    return list(pool.values())


def _verdict(statuses: set[str]) -> str:
    """Verdict on a lesion or hard negative, from the statuses of its rows, at least one of them a verdict."""
    if "accepted" in statuses or {"annotation", "rejected"} <= statuses:
        return "accepted"
    return "unsure" if "unsure" in statuses else "rejected"


def lesions_of(ledger: pd.DataFrame) -> list[HarvestedLesion]:
    """The lesions that a ledger adds to the given ones, without uncertain or rejected ones.

    s is the highest score of a lesion's rows, 1 if they have no score.
    """
    own = ledger[ledger["status"].isin(("annotation", "accepted")) & ~continues_given(ledger)]
    groups = own.sort_values("slice").groupby(["volume", "lesion"])
    return [_of_rows(name, rows) for (_, name), rows in groups]


def _of_rows(name: str, rows: pd.DataFrame) -> HarvestedLesion:
    """A lesion that only the ledger knows: a hard negative, or boxes drawn by hand, which are sure."""
    first, slice_boxes = rows.iloc[0], slice_boxes_of(rows, missing_score=1.0)
    score, annotation = float(slice_boxes[:, 5].max()), name if continues_given(rows).all() else ""
    return HarvestedLesion(
        first["volume"], int(first["round"]), -1, slice_boxes, score, 1.0, annotation, name=name
    )


def _corrected(lesion: HarvestedLesion, rows: pd.DataFrame, refused: Container[int]) -> HarvestedLesion:
    """A lesion with the ledger's boxes on its slices, and without the refused slices."""
    boxes = {int(box[0]): box for box in lesion.slice_boxes if int(box[0]) not in refused}
    for z, *box in slice_boxes_of(rows).tolist():
        score = boxes[int(z)][5] if int(z) in boxes else 0.0
        boxes[int(z)] = np.array([z, *box, score or lesion.generator])
    return replace(lesion, slice_boxes=np.array([boxes[z] for z in sorted(boxes)]))


_DETECTION_SCORE = attrgetter("generator")


def merge(
    lesions: Iterable[HarvestedLesion],
    iou: float = 0.5,
    confidence: Callable[[HarvestedLesion], float] = _DETECTION_SCORE,
) -> list[HarvestedLesion]:
    """Keep one proposal for each lesion: a judged one if any, else one that hits a mark, else the most confident.

    Two proposals are the same lesion if they have the same id, as those that hit the same mark do, or if they lie
    in one volume and have an IoU of at least ``iou`` on a slice. A proposal with any verdict counts as judged.

    Args:
        lesions: of any volumes and rounds.
        iou: least IoU on a slice at which two proposals are the same lesion.
        confidence: of a proposal; the "detection confidence" of Eq. 5 is s_g.
    """
    kept: list[HarvestedLesion] = []
    known: dict[str, KnownBoxes] = {}
    names = set()
    for lesion in sorted(lesions, key=lambda x: _precedence(x, confidence(x))):
        boxes = known.setdefault(lesion.volume, KnownBoxes())
        if lesion.lesion in names or (boxes.largest_overlap(lesion.slice_boxes) >= iou).any():
            continue
        names.add(lesion.lesion)
        boxes.add(lesion.lesion, lesion.slice_boxes, BoxStatus.LESION)
        kept.append(lesion)
    return sorted(kept, key=lambda x: (x.volume, x.round, x.number))


def _precedence(x: HarvestedLesion, confidence: float) -> tuple:
    return x.status != "accepted", x.status not in VERDICTS, not x.annotation, -confidence, x.round, x.number


_COLUMNS = {
    "volume": pa.string(),
    "round": pa.int32(),
    "number": pa.int32(),
    "generator": pa.float64(),
    "classifier": pa.float64(),
    "annotation": pa.string(),
    "status": pa.string(),
    "name": pa.string(),
    "precision": pa.float64(),
    "slice_boxes": pa.list_(pa.list_(pa.float64())),
}


def to_table(lesions: Sequence[HarvestedLesion]) -> pa.Table:
    """A table with a row for each lesion."""
    rows = [{name: getattr(x, name) for name in _COLUMNS} for x in lesions]
    rows = [{**row, "slice_boxes": row["slice_boxes"].tolist()} for row in rows]
    return pa.Table.from_pylist(rows, pa.schema(list(_COLUMNS.items())))


def from_table(table: pa.Table) -> list[HarvestedLesion]:
    """The lesions of a table of :func:`to_table`; KeyError, TypeError or ValueError for another one."""
    return [
        HarvestedLesion(**{**row, "slice_boxes": np.array(row["slice_boxes"], dtype=np.float64).reshape(-1, 6)})
        for row in table.to_pylist()
    ]
