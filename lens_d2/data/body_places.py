"""Places of boxes in the body, which are comparable between all scans of a patient.

A place is that of DeepLesion's Normalized_lesion_location: the position in the right-left and front-back extent of
the body in the slice, and the height of the slice in the body, each from 0 to 1. The extent is measured in the
slice. The height is known only for the key slices of marks (``DL_info.csv`` has it from a body-part regressor);
away from a mark, it changes in proportion to the distance between slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from ..structures.boxes import key_slice_box
from .cache import CachedVolume, VolumeCache
from .lesion_labels import mark_row
from .preprocess import PreprocessParams, body_mask
from .same_lesions import PLACE_SPREAD, Mark, collect_marks, pair_marks

# Change of the height per mm towards the head, if there are too few marks: the median in a sample of DL_info.csv.
HEIGHT_OF_MM = -0.00078
APART_MM = 10.0  # least distance of two marks from whose heights the change per mm is estimated
ENOUGH = 10  # pairs of marks from which a figure is estimated
USUAL = 68  # percentile of the differences that is typical, as a standard deviation is
BODY = PreprocessParams()


def body_extent(picture: np.ndarray, pixel_spacing: float) -> tuple[int, int, int, int] | None:
    """x, y, width and height of the body in a slice, in pixels: the largest thing in it; None if all is air.

    Args:
        picture: (H, W) HU.
        pixel_spacing: mm.
    """
    count, _, found, _ = cv2.connectedComponentsWithStats(body_mask(picture, [pixel_spacing] * 2, BODY))
    if count < 2:
        return None
    return tuple(found[1 + found[1:, cv2.CC_STAT_AREA].argmax(), :4].tolist())


class BodyPlaces:
    """Gives the places of boxes in the sub-volumes of a dataset.

    Attributes:
        height_of_mm: change of the height with a mm towards the head.
        spread: (3,) typical difference between the places of one lesion in two series.
    """

    def __init__(self, cache: VolumeCache, marks: Mapping[int, np.ndarray]):
        """
        Args:
            cache: of the sub-volumes.
            marks: (3,) places of marks by their rows, as :func:`lens_d2.data.same_lesions.read_places` gives them.
        """
        self.cache, self.marks = cache, marks
        self.height_of_mm, self.spread = HEIGHT_OF_MM, PLACE_SPREAD

    def fit(self, records: Sequence[dict]) -> None:
        """Estimate ``height_of_mm`` and ``spread``, each of which keeps its value if there are too few marks.

        ``height_of_mm``, and the spread along z, come from several marks of one sub-volume: the spread is how far
        each lies from the height that the others predict. The spread along x and y is that between marks of one
        lesion in two series.
        """
        several = [
            (_mm(self.cache.open(record), heights[:, 0]), heights[:, 1])
            for record in records
            if len(heights := self._heights_of_marks(record)) > 1
        ]
        steps = [step for mm, height in several for step in _steps(mm, height)]
        if len(steps) >= ENOUGH:
            self.height_of_mm = float(np.median(steps))
        marks = collect_marks(records, self.marks)
        pairs = pair_marks(marks)
        paired, sides = np.unique([pairs.first[pairs.same], pairs.second[pairs.same]], return_inverse=True)
        first, second = self._of_marks([marks[i] for i in paired])[sides.reshape(2, -1)]
        across = np.abs(first - second)[:, :2]
        across = across[np.isfinite(across).all(axis=1)]
        rest = [height - self.height_of_mm * mm for mm, height in several]
        along = np.abs([own[i] - np.median(np.delete(own, i)) for own in rest for i in range(len(own))])
        self.spread = np.array(self.spread, dtype=float)
        if len(across) >= ENOUGH:
            self.spread[:2] = np.maximum(np.percentile(across, USUAL, axis=0), 1e-4)
        if len(along) >= ENOUGH:
            self.spread[2] = max(np.percentile(along, USUAL), 1e-4)

    def __call__(self, record: dict, slice_boxes: np.ndarray) -> np.ndarray:
        """Places of boxes.

        Args:
            record: of their sub-volume.
            slice_boxes: (n, 5 or more) z, x1, y1, x2, y2 in the volume frame.

        Returns:
            (n, 3); NaN for all if no mark of the sub-volume has a known place, and where the slice shows no body.

        Raises:
            DataError: the sub-volume cannot be read.
        """
        places = np.full((len(slice_boxes), 3), np.nan)
        heights = self._heights_of_marks(record)
        if not len(slice_boxes) or not len(heights):
            return places
        volume = self.cache.open(record)
        start = np.median(heights[:, 1] - self.height_of_mm * _mm(volume, heights[:, 0]))
        slices = volume.geometry.slices_to_cache(slice_boxes[:, 0]).round().astype(int)
        boxes = volume.geometry.boxes_to_cache(slice_boxes[:, 1:5])
        spacing = volume.geometry.pixel_spacing or volume.geometry.spacing[0]
        pictures = volume.decode(np.unique(slices).tolist())
        extents = {z: body_extent(picture, spacing) for z, picture in pictures.items()}
        for i, (z, box) in enumerate(zip(slices.tolist(), boxes, strict=True)):
            if (extent := extents[z]) is not None:
                places[i, :2] = ((box[:2] + box[2:]) / 2 - extent[:2]) / extent[2:]
                places[i, 2] = start + self.height_of_mm * z * volume.geometry.slice_interval
        return places

    def _heights_of_marks(self, record: dict) -> np.ndarray:
        """(k, 2) slice in the volume frame and height of the record's marks whose place is known."""
        found = [
            (key_slice_box(lesion)[0], self.marks[row][2])
            for lesion in record["lesions"]
            if (row := mark_row(lesion)) in self.marks and lesion["boxes"]
        ]
        return np.array(found, dtype=float).reshape(-1, 2)

    def _of_marks(self, marks: Sequence[Mark]) -> np.ndarray:
        """(n, 3) places of marks."""
        places = [self(mark.record, np.array([[mark.slice, *mark.box]], dtype=float)) for mark in marks]
        return np.concatenate([np.zeros((0, 3)), *places])


def _mm(volume: CachedVolume, slices: np.ndarray) -> np.ndarray:
    """mm towards the head, from the lowest slice, of (k,) slices of the volume frame."""
    return volume.geometry.slices_to_cache(slices) * volume.geometry.slice_interval


def _steps(mm: np.ndarray, heights: np.ndarray) -> list[float]:
    """Changes of the height with a mm, from each pair of a sub-volume's marks that is far enough apart."""
    first, second = np.triu_indices(len(mm), 1)
    apart = mm[first] - mm[second]
    far = np.abs(apart) > APART_MM
    return ((heights[first] - heights[second])[far] / apart[far]).tolist()
