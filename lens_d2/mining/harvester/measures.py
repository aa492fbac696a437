"""Completeness of the labels after a round, measured on V_H-test (Lesion-Harvester, Tables I and II, Fig. 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pandas as pd
from tabulate import tabulate

from ...evaluation.evaluators import P3DFROCEvaluator
from ...evaluation.protocols.p3d import RECALLS
from ...evaluation.protocols.protocol import Match
from ...structures.boxes import flat_boxes3d
from ...structures.detections import VolumeDetections
from ...structures.known_boxes import KnownBoxes
from ...structures.records import given_lesions
from ...structures.status import BoxStatus
from .pool import HarvestedLesion, lesions_of, merge, to_harvested
from .selection import on_lesions

GIVEN = "R_H"
ABOVE_ALL = 2.0  # the score of a given mark, which is taken as right
SCORE = attrgetter("score")  # of a harvested lesion, s


class HarvestMeasure:
    """Measures label sets of a completely annotated part of V_H; harvesting sees only its original marks.

    A label set consists of the original marks and of scored proposals, which a falling threshold lets in.
    Proposals on a marked lesion add nothing and are left out. If several proposals lie on one lesion, the one with
    the highest score counts, as in training: Table I compares scores, not ways of merging.

    Attributes:
        records: of V_H-test, with all of their lesions.
    """

    def __init__(self, dataset: str, records: list[dict], partial: Sequence[dict], iou: float = 0.5):
        """
        Args:
            dataset: registered name of V_H-test.
            records: its records, the same for which the proposals are made.
            partial: records of V_H, with the original marks.
            iou: least IoU on a slice at which two boxes are the same lesion.
        """
        self.iou = iou
        self.evaluator = P3DFROCEvaluator(dataset, draws=0, distributed=False)
        self.records = records
        self.truth = self.evaluator.truth(self.records)
        self.marks = {record["volume"]: given_marks(record, partial) for record in self.records}

    def given(self) -> dict:
        """The row of the original marks: their share of the lesions."""
        marks = self._tracklets({name: _marks_alone(boxes) for name, boxes in self.marks.items()})
        return {"round": 0, "labels": GIVEN, "R@100P": self.evaluator.protocol.recall_of(self.truth, marks)}

    def of_round(
        self, number: int, found: Mapping[str, VolumeDetections], before: Sequence[HarvestedLesion]
    ) -> tuple[list[dict], dict[str, list]]:
        """Measure one round.

        Args:
            number: of the round.
            found: by sub-volume, its scored 3D proposals.
            before: the harvest of earlier rounds.

        Returns:
            the rows "P_H,k" (the generator's own score s_g) and "P_H,1..k^+" (s, with the earlier harvest), with
            the recall at each precision; and {"s_g" | "s_c" | "s" | "harvested": [recall, precision]}.
        """
        new = self._unmarked(found)
        sure = {name: np.ones(len(v)) for name, v in new.items()}
        scored = {
            "s_g": ({name: replace(v, fpr_scores=sure[name]) for name, v in new.items()}, ()),
            "s_c": ({name: replace(v, scores=sure[name]) for name, v in new.items()}, ()),
            "s": (new, ()),
            "harvested": (new, before),
        }
        matches = {
            key: self._match({name: self._unite(name, number, v, earlier) for name, v in own.items()})
            for key, (own, earlier) in scored.items()
        }
        plus = f"P_H,1..{number}^+" if number > 1 else "P_H,1^+"
        names = {"s_g": f"P_H,{number}", "harvested": plus}
        rows = [
            {"round": number, "labels": label, **matches[name].metrics["recall_at_precision"]}
            for name, label in names.items()
        ]
        return rows, {name: _curve(match) for name, match in matches.items()}

    def of_ledger(self, name: str, ledger: pd.DataFrame) -> tuple[dict, list]:
        """Measure the lesions that another method has mined, beside the original marks.

        Args:
            name: of the row.
            ledger: of V_H; rows that continue an original mark add nothing.

        Returns:
            the row, with the recall at each precision; and [recall, precision].
        """
        mined: dict[str, list[HarvestedLesion]] = {volume: [] for volume in self.marks}
        for lesion in lesions_of(ledger[ledger["volume"].isin(self.marks)]):
            mined[lesion.volume].append(lesion)
        found = {volume: detections_of(merge(lesions, self.iou, SCORE)) for volume, lesions in mined.items()}
        match = self._match(self._unmarked(found))
        return {"round": 0, "labels": name, **match.metrics["recall_at_precision"]}, _curve(match)

    def of_generator(self, number: int, found: Mapping[str, VolumeDetections]) -> dict:
        """Measure the generator of a round as a detector, by its 3D proposals and s_g (Table II).

        Args:
            number: of the round.
            found: by sub-volume, its 3D proposals.

        Returns:
            the row: the sensitivity at each number of false positives a sub-volume, by that number, and "AP".
        """
        metrics = self.evaluator.protocol.evaluate(self.truth, self._tracklets(found)).metrics
        sensitivities = {f"{fp:g}": s for fp, s in zip(metrics["fps"], metrics["sensitivity"], strict=True)}
        return {"round": number, **sensitivities, "AP": metrics["ap"]}

    def _unmarked(self, found: Mapping[str, VolumeDetections]) -> dict[str, VolumeDetections]:
        """The detections that are on no original mark."""
        return {name: v.select(~on_lesions(v, [self.marks[name]], self.iou)) for name, v in found.items()}

    def _unite(
        self, name: str, number: int, found: VolumeDetections, before: Sequence[HarvestedLesion]
    ) -> VolumeDetections:
        """Unite this round's proposals with the earlier harvest: for each lesion, keep the one with the highest s.

        The choice is by s because here the threshold on s decides which of them are harvested at all.

        A lesion that a radiologist has accepted is certain; proposals on a rejected one do not count.
        """
        before = [x for x in before if x.volume == name]
        rejected = [x.slice_boxes for x in before if x.status == "rejected"]
        rows = np.flatnonzero(~on_lesions(found, rejected, self.iou))
        earlier = [x for x in before if x.is_lesion and not x.annotation]
        earlier = [replace(x, generator=1.0, classifier=1.0) if x.status == "accepted" else x for x in earlier]
        lesions = merge([*to_harvested(found, rows, name, number), *earlier], self.iou, SCORE)
        return detections_of(lesions)

    def _match(self, labels: Mapping[str, VolumeDetections]):
        joined = {name: _on_top(found, self.marks[name]) for name, found in labels.items()}
        return self.evaluator.protocol.match(self.truth, self._tracklets(joined))

    def _tracklets(self, labels: Mapping[str, VolumeDetections]):
        entries = {
            record["volume"]: self.evaluator.to_entry(labels[record["volume"]], record)
            for record in self.records
            if record["volume"] in labels
        }
        return self.evaluator.detections(self.truth, entries)


def _curve(match: Match) -> list[list[float]]:
    return [np.asarray(match.recall).tolist(), np.asarray(match.precision).tolist()]


def given_marks(record: dict, partial: Sequence[dict]) -> np.ndarray:
    """(k, 5) z, x1, y1, x2, y2 of the original marks that lie in a sub-volume, on its own slices."""
    boxes = []
    for other in partial:
        if other["series"] != record["series"]:
            continue
        shift = other["first_slice"] - record["first_slice"]
        marks = KnownBoxes.of_record({"lesions": given_lesions(other)}).of_status(BoxStatus.LESION)
        boxes += [[z + shift, *box] for z, box in zip(marks.slices.tolist(), marks.boxes.tolist(), strict=True)]
    inside = [box for box in boxes if 0 <= box[0] < record["num_slices"]]
    return np.array(inside, dtype=np.float64).reshape(-1, 5)


def detections_of(lesions: Sequence[HarvestedLesion]) -> VolumeDetections:
    """The lesions of one volume as detections with the score s."""
    if not lesions:
        return VolumeDetections()
    rows = np.concatenate([x.slice_boxes for x in lesions])
    owner = np.repeat(np.arange(len(lesions)), [len(x.slice_boxes) for x in lesions])
    boxes = [[*x.best_slice[1:3], x.slice_boxes[0, 0], *x.best_slice[3:5], x.slice_boxes[-1, 0]] for x in lesions]
    return VolumeDetections(np.array(boxes), np.array([x.score for x in lesions]), rows, owner)


def _marks_alone(marks: np.ndarray) -> VolumeDetections:
    return _on_top(VolumeDetections(), marks)


def _on_top(found: VolumeDetections, marks: np.ndarray) -> VolumeDetections:
    """Detections with (k, 5) given marks before them, each mark a detection on one slice."""
    count = len(marks)
    score = np.full(count, ABOVE_ALL)
    return VolumeDetections(
        np.concatenate([flat_boxes3d(marks[:, 0], marks[:, 1:]), found.boxes]),
        np.concatenate([score, found.scores]),
        np.concatenate([np.column_stack([marks, score]), found.slice_boxes]),
        np.concatenate([np.arange(count), found.slice_detection + count]),
    )


def format_rows(rows: Sequence[dict]) -> str:
    """Format Table I: a row for each label set, in per cent."""
    lines = [[row["round"] or "", row["labels"], *_cells(row)] for row in rows]
    header = ["Round", "Training label set", *RECALLS, "Avg."]
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True)


def format_generators(rows: Sequence[dict]) -> str:
    """Format Table II: a row for each round's generator, in per cent."""
    lines = [[row["round"], *(f"{100 * row[key]:.1f}" for key in list(row)[1:])] for row in rows]
    return tabulate(lines, list(rows[0]), tablefmt="pipe", disable_numparse=True)


def _cells(row: dict) -> list[str]:
    if "R@100P" in row:
        return ["", "", f"{100 * row['R@100P']:.1f}@100P", "", ""]
    return [f"{100 * row[key]:.1f}" for key in (*RECALLS, "mean")]
