"""Planes of a scan as pictures for a page: display windows, boxes and their colours, edge letters, scale bars.

Planes are shown as radiologists expect them: axial ones from the feet, coronal ones from the front, so that the
patient's right is on the left; sagittal ones with the front on the left; head up.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

# Display windows, (low, high) HU.
WINDOWS = {"lung": (-1350.0, 150.0), "soft tissue": (-160.0, 240.0), "bone": (-450.0, 1050.0)}
PRESETS = {
    **WINDOWS,
    "liver": (-15.0, 135.0),
    "vessels": (-100.0, 500.0),
}  # offered where the window can be changed
BONE_HU = 250.0  # above contrast-enhanced organs
LUNG_HU = (-950.0, -600.0)  # aerated lung; gas in the bowel and air around the body lie below
AIR = -1024.0
OUTSIDE = -4096.0  # beyond the scan: black in every window
# Companded pictures: HU and their levels, linear between. A level is 3 HU in soft tissue, 15 in lung, 26 in bone.
# The lowest levels are beyond the scan, the gap above them keeps JPEG's errors from turning air into these.
KNOTS_HU = (-1024.0, -950.0, -150.0, 250.0, 1250.0, 3071.0)
KNOTS_LEVEL = (9.0, 13.0, 65.0, 197.0, 235.0, 255.0)
FIRST_LEVEL = 5  # that is air
# Axis of the cache frame and its end, beyond the left, right, top and bottom of each plane.
EDGES = {
    "axial": ((0, -1), (0, 1), (1, -1), (1, 1)),
    "coronal": ((0, -1), (0, 1), (2, 1), (2, -1)),
    "sagittal": ((1, -1), (1, 1), (2, 1), (2, -1)),
}
ENDS = ("LR", "PA", "HF")  # of the patient's axes, the positive one first
SLANT = np.sin(np.radians(15))  # part of a direction from which on a second letter names it
SCORES = (0.0, 0.5, 1.0)
# Yellow for low scores, orange, red for high ones: light enough to stand out from a dark CT.
COLORS = ((1.0, 0.91, 0.35), (1.0, 0.6, 0.15), (1.0, 0.24, 0.24))


@dataclass(frozen=True)
class Encoding:
    """Format in which pictures are stored.

    Attributes:
        suffix: OpenCV's name of the format, .jpg or .webp.
        quality: 1 to 100.
    """

    suffix: str = ".jpg"
    quality: int = 88

    def uri(self, grey: np.ndarray) -> str:
        """A data URI of a (rows, columns) uint8 image."""
        mime = {".jpg": "jpeg", ".webp": "webp"}[self.suffix]
        return f"data:image/{mime};base64,{self.text(grey)}"

    def text(self, grey: np.ndarray) -> str:
        """The file of a (rows, columns) uint8 image in base64."""
        flags = {
            ".jpg": [cv2.IMWRITE_JPEG_QUALITY, self.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
            ".webp": [cv2.IMWRITE_WEBP_QUALITY, self.quality],
        }[self.suffix]
        _, data = cv2.imencode(self.suffix, grey, flags)
        return base64.b64encode(data.tobytes()).decode()


JPEG = Encoding()


@dataclass(frozen=True)
class PlacedBox:
    """A box on a picture.

    Attributes:
        number, score: of the detection.
        left, top, width, height: percent of the picture's sides, from the left and the top.
    """

    number: int
    score: float
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Picture:
    """A picture ready for a page.

    Attributes:
        uri: data URI of the image; empty if the page paints it.
        width, height: pixels.
        frames: boxes on it.
        caption: its place in the scan.
        edges: letters for the sides of the patient beyond its left, right, top and bottom: L, R, A, P, H or F;
            two or three on slanting planes, the nearest side first.
        scale: percent of the width that the scale bar takes.
        scale_mm: length of the scale bar.
    """

    uri: str
    width: int
    height: int
    frames: Sequence[PlacedBox] = ()
    caption: str = ""
    edges: Sequence[str] = ()
    scale: float = 0.0
    scale_mm: int = 50


@dataclass(frozen=True)
class Plane:
    """An image in HU and its place in the cache frame.

    Attributes:
        hu: (rows, columns).
        step: mm per row, mm per column.
        start: row and column of its first pixel in the cache frame, for placing boxes.
        padding: rows above and below, columns left and right that lie outside of the scan.
    """

    hu: np.ndarray
    step: tuple[float, float]
    start: tuple[int, int] = (0, 0)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


def compand(hu: np.ndarray) -> np.ndarray:
    """Squeeze HU into 256 levels, fine in soft tissue and coarse in air and bone.

    Args:
        hu: of any shape; :data:`OUTSIDE` where there is no scan.

    Returns:
        uint8 levels of the same shape, to be decoded with :func:`level_table`.
    """
    levels = np.rint(np.interp(hu, KNOTS_HU, KNOTS_LEVEL))
    return np.where(np.asarray(hu) < (AIR + OUTSIDE) / 2, 0, levels).astype(np.uint8)


def level_table() -> list[int]:
    """HU of each of the 256 levels of :func:`compand`."""
    table = np.interp(np.arange(256), KNOTS_LEVEL, KNOTS_HU)
    table[:FIRST_LEVEL] = OUTSIDE
    return [round(value) for value in table.tolist()]


def aerated(hu: np.ndarray) -> np.ndarray:
    """Mask of voxels with the density of aerated lung."""
    return (hu > LUNG_HU[0]) & (hu < LUNG_HU[1])


def choose_window(hu: np.ndarray, box: np.ndarray | None) -> str:
    """Name of the display window that suits a lesion.

    Lung if aerated lung fills three tenths of its surroundings; bone if a quarter of it is as dense as bone.

    Args:
        hu: (H, W) slice.
        box: XYXY_ABS in it, or None for the whole slice.
    """
    if box is None:
        return "soft tissue"
    x1, y1, x2, y2 = np.round(box).astype(int)
    margin = max(4, (x2 - x1) // 2)
    around = hu[max(y1 - margin, 0) : y2 + margin, max(x1 - margin, 0) : x2 + margin]
    if around.size and np.mean(aerated(around)) > 0.3:
        return "lung"
    inside = hu[max(y1, 0) : max(y2, y1 + 1), max(x1, 0) : max(x2, x1 + 1)]
    if inside.size and np.mean(inside > BONE_HU) > 0.25:
        return "bone"
    return "soft tissue"


def crop(hu: np.ndarray, step: tuple[float, float], center: tuple[float, float], field_mm: float) -> Plane:
    """Cut a square out of an image.

    Args:
        hu: (rows, columns) image.
        step: mm per row, mm per column.
        center: row and column of the square's middle. A square that would miss the image is moved to its edge.
        field_mm: side of the square.
    """
    parts, padding, start = [], [], []
    for middle, each, length in zip(center, step, hu.shape, strict=True):
        count = max(round(field_mm / each), 1)
        first = min(max(round(middle - count / 2), 1 - count), length - 1)
        low, high = max(first, 0), min(first + count, length)
        parts.append(slice(low, high))
        padding.append((low - first, first + count - high))
        start.append(first)
    return Plane(np.pad(hu[tuple(parts)], padding, mode="edge"), step, tuple(start), tuple(padding))


def name_edges(affine: np.ndarray) -> dict[str, tuple[str, ...]]:
    """Letters at the edges of axial, coronal and sagittal planes, as :attr:`Picture.edges` has them.

    Args:
        affine: (4, 4) from the cache frame to LPS mm.
    """
    directions = np.asarray(affine)[:3, :3].T
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)

    def letters(direction: np.ndarray) -> str:
        nearest = np.argsort(-np.abs(direction), kind="stable")
        return "".join(ENDS[axis][int(direction[axis] < 0)] for axis in nearest if abs(direction[axis]) >= SLANT)

    return {plane: tuple(letters(end * directions[axis]) for axis, end in edges) for plane, edges in EDGES.items()}


def lay_out(edges: Sequence[str], width_mm: float, height_mm: float, pixels: int) -> Picture:
    """Lay out a picture that has no image yet.

    Args:
        edges: of :attr:`Picture.edges`.
        width_mm, height_mm: of what it shows.
        pixels: of its longer side.
    """
    scale = pixels / max(height_mm, width_mm)
    width, height = max(round(width_mm * scale), 1), max(round(height_mm * scale), 1)
    bar = next((each for each in (50, 20) if width_mm >= 2.4 * each), 10)
    return Picture("", width, height, edges=edges, scale=round(100 * bar / width_mm, 3), scale_mm=bar)


def draw(
    orientation: str,
    plane: Plane,
    window: tuple[float, float] | None,
    boxes: Sequence[tuple[int, float, Sequence[float]]],
    pixels: int,
    caption: str = "",
    encoding: Encoding = JPEG,
    edges: Sequence[str] = (),
) -> Picture:
    """Draw a plane.

    Args:
        orientation: "axial", "coronal" or "sagittal"; the rows of the latter two run to the head.
        plane: of the scan.
        window: HU that become black and white; None for the levels of :func:`compand`.
        boxes: number, score and XYXY in the cache frame of each.
        pixels: of the picture's longer side.
        caption: its place in the scan.
        encoding: of the image.
        edges: of :attr:`Picture.edges`.
    """
    rows, columns = plane.hu.shape
    picture = lay_out(edges, columns * plane.step[1], rows * plane.step[0], pixels)
    shown = _resize(plane, (picture.width, picture.height))
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
        placed.append(PlacedBox(number, score, *percent))
    grey = compand(shown) if window is None else _grey(shown, *window)
    return replace(picture, uri=encoding.uri(grey), frames=placed, caption=caption)


def _grey(hu: np.ndarray, low: float, high: float) -> np.ndarray:
    """HU as uint8, black at ``low`` and white at ``high``."""
    return np.rint((hu - low).clip(0, high - low) * (255 / (high - low))).astype(np.uint8)


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


def score_color(score: float) -> tuple[float, float, float]:
    """Red, green and blue, in [0, 1], for a score in [0, 1]."""
    red, green, blue = (float(np.interp(score, SCORES, channel)) for channel in zip(*COLORS, strict=True))
    return red, green, blue


def score_hex(score: float) -> str:
    """Colour for a score in [0, 1], as ``#rrggbb``."""
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in score_color(score))
