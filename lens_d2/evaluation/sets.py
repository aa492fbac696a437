"""Truth and detections as flat arrays, which the readers give and the protocols take.

Everything is in the coordinates of its file, which counts pixels inclusively (a box from x1 to x2 covers
x2 - x1 + 1 pixels). Rows of one volume stand together, in the order of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


def row_in_volume(volume: np.ndarray) -> np.ndarray:
    """(n,) number of each row among those of its volume, from 0; rows of a volume stand together."""
    starts = np.flatnonzero(np.r_[True, volume[1:] != volume[:-1]]) if len(volume) else np.zeros(0, int)
    lengths = np.diff(np.r_[starts, len(volume)])
    return np.arange(len(volume)) - np.repeat(starts, lengths)


@dataclass(frozen=True)
class BoxTruth:
    """Lesions of a set of sub-volumes.

    Attributes:
        volumes: names of all sub-volumes, including those without a lesion.
        volume: (L,) index into ``volumes``, ascending.
        boxes: (L, 6) x1, y1, z1, x2, y2, z2; a 2D box has z1 = z2.
    """

    volumes: list[str]
    volume: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.volume)

    def by_volume(self, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Name and rows of each sub-volume, of L rows of any shape, one a lesion."""
        starts = np.searchsorted(self.volume, np.arange(1, len(self.volumes)))
        return zip(self.volumes, np.split(rows, starts), strict=False)  # without volumes there is one empty part


@dataclass(frozen=True)
class BoxDetections:
    """3D boxes with scores.

    Attributes:
        volume: (n,) index into the truth's ``volumes``.
        boxes: (n, 6) x1, y1, z1, x2, y2, z2.
        scores: (n,).
    """

    volume: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.volume)


@dataclass(frozen=True)
class Tracklets:
    """Detections that are lists of 2D boxes, one on each of several slices.

    Attributes:
        volume: (n,) index into the truth's ``volumes``.
        scores: (n,) highest score of the detection's slices.
        slice_detection: (m,) detection that each slice box belongs to, ascending.
        slice_z: (m,) slice numbers from 0 in the sub-volume.
        slice_boxes: (m, 4) x1, y1, x2, y2.
        slice_scores: (m,).
    """

    volume: np.ndarray
    scores: np.ndarray
    slice_detection: np.ndarray
    slice_z: np.ndarray
    slice_boxes: np.ndarray
    slice_scores: np.ndarray

    @classmethod
    def of_rows(
        cls, volume: np.ndarray, parts: Sequence[np.ndarray], scores: Sequence[float] | None = None
    ) -> Tracklets:
        """Tracklets of the (k, 6) z, x1, y1, x2, y2, score of each detection.

        Args:
            volume: (n,) as of the class.
            parts: n of them.
            scores: n; the highest of the slices' by default.
        """
        rows = np.concatenate([np.zeros((0, 6)), *parts])
        owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        best = np.array([part[:, 5].max() for part in parts] if scores is None else scores, dtype=np.float64)
        return cls(volume, best, owner, rows[:, 0], rows[:, 1:5], rows[:, 5])

    def __len__(self) -> int:
        return len(self.volume)


@dataclass(frozen=True)
class NoduleTruth:
    """LUNA16's findings, in world millimetres.

    Attributes:
        volumes: series of the evaluation, including those without a finding.
        volume: (L,) index into ``volumes``, ascending.
        centers: (L, 3).
        diameters: (L,), all above 0.
        excluded_volume, excluded_centers, excluded_diameters: the same of the excluded findings.
    """

    volumes: list[str]
    volume: np.ndarray
    centers: np.ndarray
    diameters: np.ndarray
    excluded_volume: np.ndarray
    excluded_centers: np.ndarray
    excluded_diameters: np.ndarray

    def __len__(self) -> int:
        return len(self.volume)


@dataclass(frozen=True)
class Candidates:
    """LUNA16's candidates.

    Attributes:
        volume: (n,) index into the truth's ``volumes``.
        points: (n, 3) mm.
        scores: (n,).
    """

    volume: np.ndarray
    points: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.volume)
