"""A plane of a scan as a picture for a page, with boxes, letters at its edges and a scale.

Planes are shown as radiologists expect them: axial ones from the feet, coronal ones from the front, so that the
patient's right is on the left; sagittal ones with the front on the left; head up.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

AIR = -1024.0
OUTSIDE = -4096.0  # beyond the scan: black in every window
EDGES = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}  # left, right, top, bottom of each plane


@dataclass(frozen=True)
class Encoding:
    """How pictures are stored. suffix: OpenCV's name of the format, .jpg or .webp. quality: 1 to 100."""

    suffix: str = ".jpg"
    quality: int = 88

    def uri(self, grey: np.ndarray) -> str:
        """A data URI of a (rows, columns) uint8 image."""
        flag, mime = {".jpg": (cv2.IMWRITE_JPEG_QUALITY, "jpeg"), ".webp": (cv2.IMWRITE_WEBP_QUALITY, "webp")}[
            self.suffix
        ]
        _, data = cv2.imencode(self.suffix, grey, [flag, self.quality])
        return f"data:image/{mime};base64,{base64.b64encode(data.tobytes()).decode()}"


JPEG = Encoding()


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
        uri: data URI of the image. width, height: pixels.
        frames: boxes on it. caption: where it lies.
        edges: what lies beyond its left, right, top and bottom edge: L, R, A, P, H or F.
        scale: percent of the width that the scale bar takes, or None for none; scale_mm: its length.
    """

    uri: str
    width: int
    height: int
    frames: Sequence[Frame] = ()
    caption: str = ""
    edges: str = ""
    scale: float | None = None
    scale_mm: int = 50


@dataclass(frozen=True)
class Plane:
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


def crop(hu: np.ndarray, step: tuple[float, float], center: tuple[float, float], field_mm: float) -> Plane:
    """The square of ``field_mm`` around a point (row, column) of an image."""
    counts = [max(round(field_mm / each), 1) for each in step]
    top, left = (round(middle - count / 2) for middle, count in zip(center, counts, strict=True))
    rows, vertical = _inside(top, counts[0], hu.shape[0])
    columns, horizontal = _inside(left, counts[1], hu.shape[1])
    padding = (vertical, horizontal)
    return Plane(np.pad(hu[rows, columns], padding, mode="edge"), step, (top, left), padding)


def _inside(start: int, count: int, length: int) -> tuple[slice, tuple[int, int]]:
    """The part of a run that lies in an image, and how much of it lies before and after."""
    low, high = max(start, 0), min(start + count, length)
    return slice(low, high), (low - start, start + count - high)


def draw(
    orientation: str,
    plane: Plane,
    window: tuple[float, float],
    boxes: Sequence[tuple[int, float, Sequence[float]]],
    pixels: int,
    caption: str = "",
    encoding: Encoding = JPEG,
) -> Picture:
    """A picture of a plane.

    Args:
        orientation: "axial", "coronal" or "sagittal"; the rows of the latter two run to the head.
        window: HU that become black and white.
        boxes: number, score and XYXY in the plane's own counting of each.
        pixels: of the picture's longer side.
        caption: where it lies. encoding: of the image.
    """
    rows, columns = plane.hu.shape
    height_mm, width_mm = rows * plane.step[0], columns * plane.step[1]
    scale = pixels / max(height_mm, width_mm)
    size = max(round(width_mm * scale), 1), max(round(height_mm * scale), 1)
    shown = _resize(plane, size)
    upright = orientation == "axial"
    if not upright:
        shown = shown[::-1]  # head up
    placed = []
    for number, score, (x1, y1, x2, y2) in boxes:
        left, right = ((x - plane.start[1]) / columns for x in (x1, x2))
        top, bottom = ((y - plane.start[0]) / rows for y in (y1, y2))
        if not upright:
            top, bottom = 1 - bottom, 1 - top
        percent = [round(100 * value, 3) for value in (left, top, right - left, bottom - top)]
        placed.append(Frame(number, score, *percent))
    low, high = window
    grey = np.rint((shown - low).clip(0, high - low) * (255 / (high - low))).astype(np.uint8)
    bar = 50 if width_mm >= 120 else 20
    scale = round(100 * bar / width_mm, 3)
    return Picture(encoding.uri(grey), *size, placed, caption, EDGES[orientation], scale, bar)


def _resize(image: Plane, size: tuple[int, int]) -> np.ndarray:
    """The image at ``size`` (width, height), black outside of the scan."""
    rows, columns = image.hu.shape
    shrinking = size[0] < columns and size[1] < rows
    method = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    shown = cv2.resize(np.ascontiguousarray(image.hu, dtype=np.float32), size, interpolation=method)
    for axis, (length, padding) in enumerate(zip((rows, columns), image.padding, strict=True)):
        before, after = (round(count * shown.shape[axis] / length) for count in padding)
        outside = np.r_[:before, shown.shape[axis] - after : shown.shape[axis]]
        shown[(outside, slice(None)) if axis == 0 else (slice(None), outside)] = OUTSIDE
    return shown
