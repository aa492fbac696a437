"""Pictures of detections: slices and reformats through each, its neighbours, and projections of the whole scan.

Everything here is in the cache frame, shown as :mod:`lens_d2.visualization.planes` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.cache import CachedVolume
from ..structures.detections import Detection
from .planes import (
    AIR,
    JPEG,
    WINDOWS,
    Encoding,
    Picture,
    PlacedBox,
    Plane,
    choose_window,
    crop,
    draw,
    lay_out,
    name_edges,
)

CHUNK = 16  # slices that are in memory together
PROJECTION_WINDOW = (-250.0, 950.0)
STRIP_REACH = 3  # neighbouring slices shown on either side
MIN_STRIP_STEP = 2.0  # mm between them, at least
FIELD_RANGE = (64.0, 240.0)  # mm, of the pictures around a detection
AXES = {"coronal": 0, "sagittal": 1}  # the axis x or y that runs along the rows of a reformat
GIVEN = 0  # the number of the boxes of given annotations


@dataclass(frozen=True)
class Style:
    """Size of pictures, in pixels of the longer side, and their encoding.

    Attributes:
        axial: whole slices.
        close_up: key slices around a detection.
        detail: reformats.
        strip: neighbouring slices.
        projection: of the whole scan.
        encoding: of all.
    """

    axial: int = 480
    close_up: int = 290
    detail: int = 290
    strip: int = 180
    projection: int = 360
    encoding: Encoding = JPEG


REPORT = Style()


class PictureMaker:
    """Draws the detections in one volume, which it reads once for projections and reformats, then by slices."""

    def __init__(
        self,
        volume: CachedVolume,
        detections: Sequence[Detection],
        style: Style = REPORT,
        given: Sequence[Sequence[float]] = (),
    ):
        """
        Args:
            volume: in the cache.
            detections: in the volume frame.
            style: of the pictures.
            given: (n, 5) slice boxes of annotations, in the volume frame, that axial pictures show too.
        """
        self.volume, self.detections, self.style = volume, detections, style
        self.given = np.array(given, dtype=np.float64).reshape(-1, 5)
        self.geometry = volume.geometry
        affine = self.geometry.cache_affine
        self.edges = name_edges(affine)
        self.pixel = float(np.linalg.norm(affine[:3, 0])), float(np.linalg.norm(affine[:3, 1]))
        self.interval = self.geometry.slice_interval
        self.boxes = self._boxes_in_cache()

    def _boxes_in_cache(self) -> np.ndarray:
        """(n, 6) x1, y1, z1, x2, y2, z2 of the cache frame; z at the outer faces, slice k spanning [k, k + 1]."""
        boxes = self.geometry.boxes3d_to_cache(np.array([each.box for each in self.detections]).reshape(-1, 6))
        boxes[:, 5] += 1
        return boxes

    @cached_property
    def _scan(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Projection and each detection's reformat, by orientation, from one pass over the scan."""
        depth, height, width = self.volume.shape
        middle = ((self.boxes[:, :3] + self.boxes[:, 3:]) / 2).astype(int)
        rows, columns = middle[:, 1].clip(0, height - 1), middle[:, 0].clip(0, width - 1)
        front, side = np.full((depth, width), AIR, np.float32), np.full((depth, height), AIR, np.float32)
        coronals = np.zeros((len(rows), depth, width), np.int16)
        sagittals = np.zeros((len(rows), depth, height), np.int16)
        for first in range(0, depth, CHUNK):
            part = slice(first, min(first + CHUNK, depth))
            hu = self.volume.read(range(part.start, part.stop))
            front[part], side[part] = hu.max(axis=1), hu.max(axis=2)
            coronals[:, part] = hu[:, rows].transpose(1, 0, 2)
            sagittals[:, part] = hu[:, :, columns].transpose(2, 0, 1)
        return {"coronal": (front, coronals), "sagittal": (side, sagittals)}

    def projections(self) -> dict[str, Picture]:
        """Maximum intensity projections from the front and from the left side, with all boxes."""
        made = {}
        for orientation, axis in AXES.items():
            boxes = [
                (each.number, each.score, (box[axis], box[2], box[axis + 3], box[5]))
                for each, box in zip(self.detections, self.boxes, strict=True)
            ]
            plane = Plane(self._scan[orientation][0], (self.interval, self.pixel[axis]))
            made[orientation] = self._draw(orientation, plane, PROJECTION_WINDOW, boxes, self.style.projection)
        return made

    def window(self, index: int) -> str:
        """Name of the display window that suits a detection."""
        key = self.key(index)
        return choose_window(self.volume.read([key])[0], self.slice_box(index, key))

    def slice_view(self) -> Picture:
        """Layout of a whole slice that the page paints itself."""
        _, height, width = self.volume.shape
        return lay_out(self.edges["axial"], width * self.pixel[0], height * self.pixel[1], self.style.axial)

    def close_view(self, index: int) -> tuple[Picture, PlacedBox]:
        """Layout of the surroundings of a detection that the page paints itself, and their part of the slice."""
        _, height, width = self.volume.shape
        plane = self._around(index, self.key(index))
        rows, columns = plane.hu.shape
        size_mm = columns * self.pixel[0], rows * self.pixel[1]
        layout = lay_out(self.edges["axial"], *size_mm, self.style.close_up)
        percent = 100 * np.array([plane.start[1] / width, plane.start[0] / height, columns / width, rows / height])
        each = self.detections[index]
        return layout, PlacedBox(each.number, each.score, *percent.round(3).tolist())

    def frames(self, index: int) -> dict[int, PlacedBox]:
        """Boxes of a detection by the slice of the cache frame."""
        _, height, width = self.volume.shape
        each = self.detections[index]
        frames = {}
        for z in np.rint(self.geometry.slices_to_cache(each.slices)).astype(int).tolist():
            box = self.slice_box(index, z)
            if box is not None:
                x1, y1, x2, y2 = 100 * box / [width, height, width, height]
                percent = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
                frames[z] = PlacedBox(each.number, each.score, *percent)
        return frames

    def whole(self, index: int, window: str) -> Picture:
        """The whole key slice."""
        key = self.key(index)
        plane = Plane(self.volume.read([key])[0], self.pixel[::-1])
        return self._draw("axial", plane, WINDOWS[window], self._slice_boxes(index, key), self.style.axial)

    def close_ups(self, index: int, windows: Sequence[str]) -> list[Picture]:
        """The key slice around a detection in several windows."""
        key = self.key(index)
        plane, boxes = self._around(index, key), self._slice_boxes(index, key)
        return [self._draw("axial", plane, WINDOWS[name], boxes, self.style.close_up) for name in windows]

    def reformat(self, index: int, orientation: str, window: str | None) -> Picture:
        """A "coronal" or "sagittal" picture around a detection in a window; in companded HU for None."""
        axis = AXES[orientation]
        each, box, step = self.detections[index], self.boxes[index], (self.interval, self.pixel[axis])
        field_mm = float(np.clip(3 * max(each.size_mm), 2 * FIELD_RANGE[0], FIELD_RANGE[1]))
        center = ((box[2] + box[5]) / 2, (box[axis] + box[axis + 3]) / 2)
        boxes = [(each.number, each.score, (box[axis], box[2], box[axis + 3], box[5]))]
        plane = crop(self._scan[orientation][1][index], step, center, field_mm)
        return self._draw(orientation, plane, WINDOWS[window] if window else None, boxes, self.style.detail)

    def strip(self, index: int, window: str) -> list[Picture]:
        """The key slice and its neighbours around a detection, from the feet upwards."""
        key = self.key(index)
        step = max(round(self.detections[index].size_mm[2] / (2 * STRIP_REACH) / self.interval), 1)
        step = max(step, int(np.ceil(MIN_STRIP_STEP / self.interval - 1e-6)))
        pictures = []
        for offset in range(-STRIP_REACH * step, STRIP_REACH * step + 1, step):
            z = key + offset
            if not 0 <= z < self.volume.shape[0]:
                continue
            caption = "key slice" if offset == 0 else f"{offset * self.interval:+.1f} mm".replace("-", "−")
            plane, boxes = self._around(index, z), self._slice_boxes(index, z)
            pictures.append(self._draw("axial", plane, WINDOWS[window], boxes, self.style.strip, caption))
        return pictures

    def _draw(
        self,
        orientation: str,
        plane: Plane,
        window: tuple[float, float] | None,
        boxes: Sequence[tuple[int, float, Sequence[float]]],
        pixels: int,
        caption: str = "",
    ) -> Picture:
        edges = self.edges[orientation]
        return draw(orientation, plane, window, boxes, pixels, caption, self.style.encoding, edges)

    def key(self, index: int) -> int:
        """The key slice of a detection in the cache frame."""
        return int(np.rint(self.geometry.slices_to_cache([self.detections[index].key_slice]))[0])

    def _around(self, index: int, z: int) -> Plane:
        """The surroundings of a detection on a slice."""
        box = self.boxes[index]
        center = ((box[1] + box[4]) / 2, (box[0] + box[3]) / 2)
        field_mm = float(np.clip(2.5 * max(self.detections[index].size_mm[:2]), *FIELD_RANGE))
        return crop(self.volume.read([z])[0], self.pixel[::-1], center, field_mm)

    def _slice_boxes(self, index: int, z: int) -> list[tuple[int, float, np.ndarray]]:
        """Boxes on a slice: the detection's, and the given ones with the number 0."""
        each, own = self.detections[index], self.slice_box(index, z)
        (native,) = np.rint(self.geometry.slices_to_volume([z])).astype(int)
        given = self.geometry.boxes_to_cache(self.given[self.given[:, 0] == native, 1:5])
        boxes = [] if own is None else [(each.number, each.score, own)]
        return boxes + [(GIVEN, 1.0, box) for box in given]

    def slice_box(self, index: int, z: int) -> np.ndarray | None:
        """(4,) XYXY of a detection on a slice of the cache frame; None if it does not reach that slice."""
        detection = self.detections[index]
        (own,) = np.rint(self.geometry.slices_to_volume([z])).astype(int)
        rows = detection.slice_boxes[detection.slice_boxes[:, 0] == own]
        return self.geometry.boxes_to_cache(rows[0, 1:5])[0] if len(rows) else None
