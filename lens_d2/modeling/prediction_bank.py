"""The bank of a teacher's predictions, which tells those that persist from those that come and go.

A slice is trained on many times, each time augmented in another way, with a teacher that has learned more. What it
finds there in one visit after another is likely a lesion; what it finds once may be noise (arXiv:2309.13306).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..structures.boxes import match_best_first, pairwise_iou

SAME = 0.5  # IoU above which boxes of two visits are the same finding


@dataclass(frozen=True)
class Visit:
    """One look of the teacher at a slice.

    Attributes:
        volume: name of the sub-volume.
        slice: number of the slice in the volume frame, from 0.
        view: (4,) part of the slice that was seen, XYXY in the volume frame.
        boxes: (n, 4) what was found there, XYXY in the volume frame.
    """

    volume: str
    slice: int
    view: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of(cls, sample: dict, boxes: Tensor) -> Visit:
        """Make the visit of a sample from the boxes found on it.

        Args:
            sample: as the mapper makes it.
            boxes: (n, 4) XYXY_ABS in its image.
        """
        height, width = sample["image"].shape[-2:]
        whole = np.array([[0.0, 0.0, width, height]])
        corners = np.concatenate([whole, boxes.numpy().astype(float)]).reshape(-1, 2, 2)
        corners = corners @ sample["to_volume"][:, :2].T + sample["to_volume"][:, 2]
        view, *found = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        return cls(sample["volume"], sample["slice"], view, np.array(found).reshape(-1, 4))


class PredictionBank:
    """Findings on each slice, each with its number of consecutive visits.

    A finding that does not recur although it is in view is forgotten.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], np.ndarray] = {}  # (k, 5) XYXY and the number of visits, by slice

    def visits(self, visit: Visit) -> np.ndarray:
        """(n,) consecutive visits in which each box of a visit has been found, this one included."""
        return self._match(visit)[0]

    def add(self, visits: Iterable[Visit]) -> None:
        """Take in visits, one after another."""
        for visit in visits:
            count, others = self._match(visit)
            beyond = (others[:, :2] < visit.view[:2]).any(axis=1) | (others[:, 2:4] > visit.view[2:]).any(axis=1)
            found = np.column_stack([visit.boxes, count])
            self._found[visit.volume, visit.slice] = np.concatenate([others[beyond], found])

    def _match(self, visit: Visit) -> tuple[np.ndarray, np.ndarray]:
        """Count the visits of each box, as :meth:`visits`, and give the earlier findings that no box repeats."""
        known = self._found.get((visit.volume, visit.slice), np.zeros((0, 5)))
        again, of_known = match_best_first(pairwise_iou(visit.boxes, known[:, :4]), SAME)
        count = np.ones(len(visit.boxes), dtype=int)
        count[again] += known[of_known, 4].astype(int)
        return count, np.delete(known, of_known, axis=0)

    def state_dict(self) -> dict:
        """All findings, for a checkpoint."""
        return {"slices": list(self._found), "findings": [torch.from_numpy(own) for own in self._found.values()]}

    def load_state_dict(self, state: dict) -> None:
        """Take over the findings of a checkpoint."""
        self._found = dict(zip(state["slices"], (own.numpy() for own in state["findings"]), strict=True))
