"""Pictures for the report: slices through each detection, its neighbourhood, and projections of the whole scan.

Everything here is in the cache frame, shown as radiologists expect it: axial slices from the feet, coronal ones
from the front, so that the patient's right is on the left; sagittal ones with the front on the left; head up.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..data.cache import CachedVolume
from ..visualization import WINDOWS, choose_window
from .scan_report import Detection, ScanReport

CHUNK = 16  # slices that are in memory together
JPEG_QUALITY = 88
AIR = -1024.0
NOTHING = -32768.0  # outside of the scan: black in every window
AXIAL_PIXELS, DETAIL_PIXELS, STRIP_PIXELS, PROJECTION_PIXELS = 480, 290, 180, 360  # of the longer side
EDGES = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}  # left, right, top, bottom of each plane
PROJECTION_WINDOW = (-250.0, 950.0)
STRIP_REACH = 3  # neighbouring slices shown on either side
MIN_STRIP_STEP = 2.0  # mm between them, at least
FIELD_RANGE = (64.0, 240.0)  # mm, of the pictures around a detection


@dataclass(frozen=True)
class Frame:
    """A box on a picture, in percent of its sides from the left and top."""

    number: int
    score: float
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Picture:
    """One picture, ready for a page.

    Attributes:
        uri: data URI of a JPEG. width, height: pixels.
        frames: boxes on it. caption: where it lies.
        edges: what lies beyond its left, right, top and bottom edge: L, R, A, P, H or F.
        scale: percent of the width that are 50 mm, or None for no scale bar.
    """

    uri: str
    width: int
    height: int
    frames: Sequence[Frame] = ()
    caption: str = ""
    edges: str = ""
    scale: float | None = None


@dataclass(frozen=True)
class DetectionPictures:
    """The pictures of one detection: the whole key slice, details around it, neighbouring slices, feet first."""

    window: str
    axial: Picture
    coronal: Picture
    sagittal: Picture
    strip: Sequence[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class _Plane:
    """A (rows, columns) image in HU and where it lies.

    Attributes:
        step: mm per row, mm per column.
        start: row and column of its first pixel in the cache frame's own counting, for placing boxes.
        padding: rows above and below, columns left and right that lie outside of the scan.
    """

    hu: np.ndarray
    step: tuple[float, float]
    start: tuple[int, int] = (0, 0)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


class PictureMaker:
    """Draws a report's pictures. Reads the scan once for projections and reformats, then slice by slice."""

    def __init__(self, report: ScanReport):
        self.volume: CachedVolume = report.volume
        self.geometry = report.geometry
        self.detections = report.detections
        affine = self.geometry.cache_affine
        self.pixel = float(np.linalg.norm(affine[:3, 0])), float(np.linalg.norm(affine[:3, 1]))
        self.interval = self.geometry.slice_interval
        self.boxes = self._boxes_in_cache()
        self._scan()

    def _boxes_in_cache(self) -> np.ndarray:
        """(n, 6) x1, y1, z1, x2, y2, z2 of the cache frame; z at the outer faces, slice k spanning [k, k + 1]."""
        boxes = self.geometry.boxes3d_to_cache(np.array([each.box for each in self.detections]).reshape(-1, 6))
        boxes[:, 5] += 1
        return boxes

    def _scan(self) -> None:
        """Projections and each detection's coronal and sagittal slice, in one pass over the scan."""
        depth, height, width = self.volume.shape
        middle = ((self.boxes[:, :3] + self.boxes[:, 3:]) / 2).astype(int)
        rows, columns = middle[:, 1].clip(0, height - 1), middle[:, 0].clip(0, width - 1)
        self.front = np.full((depth, width), AIR, np.float32)
        self.side = np.full((depth, height), AIR, np.float32)
        self.coronals = np.zeros((len(rows), depth, width), np.int16)
        self.sagittals = np.zeros((len(rows), depth, height), np.int16)
        for first in range(0, depth, CHUNK):
            part = slice(first, min(first + CHUNK, depth))
            hu = self.volume.read(range(part.start, part.stop))
            self.front[part], self.side[part] = hu.max(axis=1), hu.max(axis=2)
            self.coronals[:, part] = hu[:, rows].transpose(1, 0, 2)
            self.sagittals[:, part] = hu[:, :, columns].transpose(2, 0, 1)

    def projections(self) -> dict[str, Picture]:
        """Maximum intensity projections from the front and from the left side, with all boxes."""
        made = {}
        for plane, hu, axis in (("coronal", self.front, 0), ("sagittal", self.side, 1)):
            frames = [(each, (box[axis], box[2], box[axis + 3], box[5])) for each, box in self._numbered()]
            made[plane] = self._picture(
                plane, _Plane(hu, (self.interval, self.pixel[axis])), PROJECTION_WINDOW, frames, PROJECTION_PIXELS
            )
        return made

    def pictures(self, index: int) -> DetectionPictures:
        """The pictures of one detection, by its position in the report."""
        detection, box = self.detections[index], self.boxes[index]
        (key,) = np.rint(self.geometry.slices_to_cache([detection.key_slice])).astype(int)
        hu = self.volume.read([key])[0]
        window = choose_window(hu, self._slice_box(detection, key))
        return DetectionPictures(
            window=window,
            axial=self._axial(detection, key, hu, window),
            coronal=self._detail(index, "coronal", self.coronals[index], box, 0, window),
            sagittal=self._detail(index, "sagittal", self.sagittals[index], box, 1, window),
            strip=self._strip(detection, box, key, window),
        )

    def _axial(self, detection: Detection, key: int, hu: np.ndarray, window: str) -> Picture:
        """The whole key slice."""
        own = self._slice_box(detection, key)
        frames = [] if own is None else [(detection, own)]
        return self._picture("axial", _Plane(hu, self.pixel[::-1]), WINDOWS[window], frames, AXIAL_PIXELS)

    def _detail(self, index: int, plane: str, hu: np.ndarray, box: np.ndarray, axis: int, window: str) -> Picture:
        """A coronal (axis 0) or sagittal (axis 1) picture around a detection."""
        step = (self.interval, self.pixel[axis])
        field_mm = float(np.clip(3 * max(self.detections[index].size_mm), 2 * FIELD_RANGE[0], FIELD_RANGE[1]))
        center = ((box[2] + box[5]) / 2, (box[axis] + box[axis + 3]) / 2)
        frames = [(self.detections[index], (box[axis], box[2], box[axis + 3], box[5]))]
        return self._picture(plane, _crop(hu, step, center, field_mm), WINDOWS[window], frames, DETAIL_PIXELS)

    def _strip(self, detection: Detection, box: np.ndarray, key: int, window: str) -> list[Picture]:
        """Details of the key slice and its neighbours, from the feet upwards."""
        size = max(detection.size_mm[:2])
        field_mm = float(np.clip(2.5 * size, *FIELD_RANGE))
        step = max(round(detection.size_mm[2] / (2 * STRIP_REACH) / self.interval), 1)
        step = max(step, int(np.ceil(MIN_STRIP_STEP / self.interval - 1e-6)))
        center = ((box[1] + box[4]) / 2, (box[0] + box[3]) / 2)
        pictures = []
        for offset in range(-STRIP_REACH * step, STRIP_REACH * step + 1, step):
            z = key + offset
            if not 0 <= z < self.volume.shape[0]:
                continue
            own = self._slice_box(detection, z)
            frames = [] if own is None else [(detection, own)]
            caption = "key slice" if offset == 0 else f"{offset * self.interval:+.1f} mm".replace("-", "−")
            plane = _crop(self.volume.read([z])[0], self.pixel[::-1], center, field_mm)
            pictures.append(self._picture("axial", plane, WINDOWS[window], frames, STRIP_PIXELS, caption))
        return pictures

    def _numbered(self):
        return zip(self.detections, self.boxes, strict=True)

    def _slice_box(self, detection: Detection, z: int) -> np.ndarray | None:
        """XYXY of a detection on a slice of the cache frame; None where it does not reach that slice."""
        (own,) = np.rint(self.geometry.slices_to_volume([z])).astype(int)
        if own not in detection.slices:
            return None
        rows = detection.slice_boxes[detection.slice_boxes[:, 0] == own]
        box = rows[0, 1:5] if len(rows) else np.array(detection.box)[[0, 1, 3, 4]]
        return self.geometry.boxes_to_cache(box)[0]

    def _picture(
        self,
        plane: str,
        image: _Plane,
        window: tuple[float, float],
        frames: Sequence[tuple[Detection, Sequence[float]]],
        pixels: int,
        caption: str = "",
    ) -> Picture:
        """A picture whose longer side has ``pixels``; frames are XYXY in the plane's own counting."""
        rows, columns = image.hu.shape
        height_mm, width_mm = rows * image.step[0], columns * image.step[1]
        scale = pixels / max(height_mm, width_mm)
        size = max(round(width_mm * scale), 1), max(round(height_mm * scale), 1)
        shown = _resize(image, size)
        upright = plane == "axial"
        if not upright:
            shown = shown[::-1]  # head up
        placed = []
        for detection, (x1, y1, x2, y2) in frames:
            left, right = ((x - image.start[1]) / columns for x in (x1, x2))
            top, bottom = ((y - image.start[0]) / rows for y in (y1, y2))
            if not upright:
                top, bottom = 1 - bottom, 1 - top
            percent = [round(100 * value, 3) for value in (left, top, right - left, bottom - top)]
            placed.append(Frame(detection.number, detection.score, *percent))
        return Picture(_jpeg(shown, window), *size, placed, caption, EDGES[plane], round(5000 / width_mm, 3))


def _crop(hu: np.ndarray, step: tuple[float, float], center: tuple[float, float], field_mm: float) -> _Plane:
    """The square of ``field_mm`` around a point (row, column) of an image."""
    counts = [max(round(field_mm / each), 1) for each in step]
    top, left = (round(middle - count / 2) for middle, count in zip(center, counts, strict=True))
    rows, vertical = _inside(top, counts[0], hu.shape[0])
    columns, horizontal = _inside(left, counts[1], hu.shape[1])
    padding = (vertical, horizontal)
    return _Plane(np.pad(hu[rows, columns], padding, mode="edge"), step, (top, left), padding)


def _inside(start: int, count: int, length: int) -> tuple[slice, tuple[int, int]]:
    """The part of a run that lies in an image, and how much of it lies before and after."""
    low, high = max(start, 0), min(start + count, length)
    return slice(low, high), (low - start, start + count - high)


def _resize(image: _Plane, size: tuple[int, int]) -> np.ndarray:
    """The image at ``size`` (width, height), black outside of the scan."""
    rows, columns = image.hu.shape
    shrinking = size[0] < columns and size[1] < rows
    method = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    shown = cv2.resize(np.ascontiguousarray(image.hu, dtype=np.float32), size, interpolation=method)
    for axis, (length, padding) in enumerate(zip((rows, columns), image.padding, strict=True)):
        before, after = (round(count * shown.shape[axis] / length) for count in padding)
        outside = np.r_[:before, shown.shape[axis] - after : shown.shape[axis]]
        shown[(outside, slice(None)) if axis == 0 else (slice(None), outside)] = NOTHING
    return shown


def _jpeg(hu: np.ndarray, window: tuple[float, float]) -> str:
    """A data URI of an image in a display window."""
    low, high = window
    grey = np.rint((hu - low).clip(0, high - low) * (255 / (high - low))).astype(np.uint8)
    _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
