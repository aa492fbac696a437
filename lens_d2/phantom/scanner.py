"""Scanners: they turn a painted canvas into slices with blur, noise, shading, couch and field of view."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .anatomy import Anatomy, Painter
from .lesions import Lesion
from .space import Canvas, Pose, ScanGrid
from .tissue import PHASES, Tissues


@dataclass(frozen=True)
class Scanner:
    """Properties of one dataset's scanners.

    Attributes:
        pixel: range of the pixel size for the reference matrix, mm.
        intervals: slice intervals, mm, and their shares.
        noise: range of the noise's standard deviation in the middle of the trunk for slices of 3 mm, HU.
        sharpness: range of the kernel, from 0, smooth and blobby, to 1, sharp and fine-grained.
        phases: shares of the contrast phases, in the order of ``PHASES``.
        offset: standard deviation of the scanner's error, HU.
        shading: standard deviation of the slow cupping over the body, HU.
        padding: value outside the round field of view, and share of series that are cut to it; None for none.
    """

    pixel: tuple[float, float]
    intervals: tuple[tuple[float, float], ...]
    noise: tuple[float, float]
    sharpness: tuple[float, float]
    phases: tuple[float, float, float]
    offset: float = 1.5
    shading: float = 4.0
    padding: tuple[float, float] | None = None


SCANNERS = {
    "deeplesion": Scanner(
        (1.7, 2.1), ((1.0, 0.3), (1.5, 0.2), (2.0, 0.2), (2.5, 0.1), (5.0, 0.2)), (8, 15), (0.1, 0.5),
        (0.2, 0.2, 0.6), padding=(-2000, 0.25),
    ),
    "luna": Scanner((1.7, 2.0), ((2.0, 0.35), (2.5, 0.4), (3.0, 0.25)), (22, 40), (0.6, 1.0), (0.75, 0.1, 0.15),
                    offset=4.0, shading=7.0, padding=(-3024, 0.3)),
    "lits": Scanner((1.7, 2.0), ((2.0, 0.2), (3.0, 0.3), (4.0, 0.2), (5.0, 0.3)), (10, 20), (0.2, 0.6),
                    (0.05, 0.25, 0.7), offset=3.0),
    "nih_ln": Scanner((1.75, 2.1), ((2.0, 0.3), (2.5, 0.4), (3.0, 0.3)), (9, 16), (0.2, 0.5), (0.05, 0.1, 0.85)),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Settings of one series; see ``Scanner``.

    Attributes:
        phase: one of ``PHASES``.
        strength: of the injection, 1 on average.
        spacing: x, y, z, mm.
        noise, sharpness, offset, shading: of this series.
        padding: value outside the round field of view, or None.
    """

    phase: str
    strength: float
    spacing: tuple[float, float, float]
    noise: float
    sharpness: float
    offset: float
    shading: float
    padding: float | None


def draw_settings(scanner: Scanner, rng, pixel_factor: float = 1.0) -> Settings:
    """Draw the settings of one series; ``pixel_factor`` scales the pixels for a smaller matrix."""
    intervals, shares = zip(*scanner.intervals, strict=True)
    pixel = float(np.round(rng.uniform(*scanner.pixel) * pixel_factor, 4))
    cut = scanner.padding is not None and rng.random() < scanner.padding[1]
    return Settings(
        phase=str(rng.choice(PHASES, p=scanner.phases)),
        strength=float(np.clip(rng.normal(1.0, 0.15), 0.6, 1.4)),
        spacing=(pixel, pixel, float(rng.choice(intervals, p=shares))),
        noise=float(rng.uniform(*scanner.noise)),
        sharpness=float(rng.uniform(*scanner.sharpness)),
        offset=float(rng.normal(0, scanner.offset)),
        shading=float(rng.normal(0, scanner.shading)),
        padding=scanner.padding[0] if cut else None,
    )


@dataclass
class Scan:
    """A finished scan and its truth.

    Attributes:
        hu: (Z, H, W) int16.
        grid: its voxels.
        covers: lesion instance -> (slices of z, y, x; (z, y, x) coverage in [0, 1]).
        organs: (Z, H, W) uint8 numbers of ``anatomy.ORGANS``, or None.
        liver: (Z, H, W) bool mask of the liver, lesions included, or None.
    """

    hu: np.ndarray
    grid: ScanGrid
    covers: dict
    organs: np.ndarray | None = None
    liver: np.ndarray | None = None


def scan_patient(
    anatomy: Anatomy,
    lesions: list[Lesion],
    extras: list,
    pose: Pose,
    grid: ScanGrid,
    settings: Settings,
    study: int,
    rng,
    labels: bool = False,
    with_liver: bool = False,
) -> Scan:
    """Scan a patient.

    Args:
        anatomy: of the patient.
        lesions: of the patient.
        extras: mimics, painted before the lesions (see ``mimics``).
        pose: of the patient.
        grid: the whole matrix; only the body's part of it is painted.
        settings: of the series.
        study: index of the study, for the lesions' growth.
        rng: generator.
        labels: whether to keep the map of organs.
        with_liver: whether to keep the map of the liver.
    """
    rows, columns, inner = _body_part(grid, anatomy, pose)
    canvas = Canvas(inner, pose, subslices=1 if grid.spacing[2] < 3.1 else 2)
    painter = Painter(canvas, anatomy, Tissues(settings.phase, settings.strength, anatomy.deviates), rng, labels)
    painter.run()
    for extra in extras:
        extra.paint(painter)
    covers = {}
    for lesion in lesions:
        painted = lesion.paint(painter, study) if study >= lesion.first_study else None
        if painted is not None:
            found = _slice_cover(canvas, *painted, rows.start, columns.start)
            if found is not None:
                covers[lesion.instance] = found
    depth = canvas.slices(canvas.hu)
    body = np.full(grid.shape, -1000.0, np.float32)
    _couch(body, grid, body_extent(anatomy)[1][1] + pose.shift[1] + rng.uniform(2, 12), rng)
    body[:, rows, columns] = np.maximum(depth, np.where(depth < -995, body[:, rows, columns], -2000))
    hu = _detect(body, grid, settings, rng)
    scan = Scan(hu, grid, covers)
    if labels:
        scan.organs = np.zeros(grid.shape, np.uint8)
        scan.organs[:, rows, columns] = painter.labels[canvas.subslices // 2 :: canvas.subslices]
    if with_liver:
        scan.liver = np.zeros(grid.shape, bool)
        scan.liver[:, rows, columns] = (
            canvas.slices(canvas.refine(anatomy.solids["liver"](*canvas.coarse), canvas.whole)) > 0
        )
    return scan


def body_extent(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Corners low and high (x, y) of the body on the table before it is shifted, mm."""
    torso = anatomy.torso
    side = 151 + 1.1 * torso.fat[1]
    front = 104 + max(1.25 * torso.fat[0] + torso.belly, 0.9 * torso.fat[0] + torso.breasts)
    back = 104 + 1.25 * torso.fat[2]
    scale = anatomy.scale[:2]
    return np.array([-side, -front]) * scale - 5, np.array([side, back]) * scale + 5


def _body_part(grid: ScanGrid, anatomy: Anatomy, pose: Pose):
    """Rows and columns that the body needs, as slices in steps of 4, and their grid."""
    depth, height, width = grid.shape
    (left, front), (right, back) = (v[:2] + pose.shift[:2] for v in body_extent(anatomy))
    heights = grid.origin[2] + np.array([0, depth - 1]) * grid.step[2]
    tilt = np.abs(pose.angles[[1, 0]]) * np.abs(heights).max() + 3
    corners = np.array(
        [[x, y, 0] for x in (left - tilt[0], right + tilt[0]) for y in (front - tilt[1], back + tilt[1])]
    )
    index = grid.to_index(corners)
    spans = []
    for axis, size in ((1, height), (0, width)):
        low = max(int(index[:, axis].min()) // 4 * 4, 0)
        high = min(int(np.ceil(index[:, axis].max() / 4)) * 4, size)
        spans.append(slice(low, high))
    rows, columns = spans
    origin = tuple(grid.to_scan([columns.start, rows.start, 0]))
    shape = (depth, rows.stop - rows.start, columns.stop - columns.start)
    return rows, columns, ScanGrid(shape, grid.spacing, origin, grid.direction)


def _slice_cover(canvas: Canvas, index, cover, row: int, column: int):
    """(z, y, x) slices of the scan and a lesion's coverage of them; None if it covers fewer than three voxels."""
    n = canvas.subslices
    first, last = index[0].start // n, -(-index[0].stop // n)
    full = np.zeros(((last - first) * n, *cover.shape[1:]), np.float32)
    start = index[0].start - first * n
    full[start : start + len(cover)] = cover
    mean = full.reshape(-1, n, *cover.shape[1:]).mean(axis=1)
    hit = mean > 0.5
    if hit.sum() < 3:
        return None
    z, y, x = (np.flatnonzero(hit.any(axis=a)) for a in ((1, 2), (0, 2), (0, 1)))
    box = tuple(slice(v[0], v[-1] + 1) for v in (z, y, x))
    place = (
        slice(first + z[0], first + z[-1] + 1),
        slice(index[1].start + row + y[0], index[1].start + row + y[-1] + 1),
        slice(index[2].start + column + x[0], index[2].start + column + x[-1] + 1),
    )
    return place, mean[box]


def _couch(body, grid: ScanGrid, height: float, rng):
    """Add a thin curved table top under the patient, as far as it reaches into the field of view."""
    x = grid.to_scan([[i, 0, 0] for i in range(grid.shape[2])])[:, 0]
    y = grid.to_scan([[0, j, 0] for j in range(grid.shape[1])])[:, 1]
    surface = height - x**2 / rng.uniform(900, 2500)
    distance = np.abs(y[:, None] - surface[None, :])
    cover = np.clip(1.2 - distance / grid.spacing[1], 0, 1).astype(np.float32)
    body += cover * np.float32(rng.uniform(300, 650))


def _detect(body, grid: ScanGrid, settings: Settings, rng) -> np.ndarray:
    """(Z, H, W) int16 HU with point spread, shading, correlated noise and the cut field of view."""
    pixel = grid.spacing[0]
    blur = (0.95 - 0.45 * settings.sharpness) / pixel * 0.9
    level = settings.noise * float(np.sqrt(3.0 / grid.spacing[2]))
    fine, coarse = (1.1 - 0.6 * settings.sharpness) / pixel * 1.0, 3.2 / pixel
    white = rng.standard_normal(body.shape, dtype=np.float32)
    sample = _kernel(white[0], fine, coarse)
    gain = level / float(sample.std())
    shade = _slow(body.shape[1:], rng)
    out = np.empty(body.shape, np.int16)
    for number, plane in enumerate(body):
        plane = cv2.GaussianBlur(plane, (0, 0), max(blur, 0.15))
        soft = _thickness(plane, pixel)
        noise = _kernel(white[number], fine, coarse)
        noise *= gain * (0.3 + 0.8 * soft)
        plane += noise
        plane += settings.offset * soft + settings.shading * (soft - 0.5) + 2.5 * shade * soft
        np.rint(np.clip(plane, -1024, 3071), out=plane)
        out[number] = plane
    if settings.padding is not None:
        rows, columns = np.indices(body.shape[1:])
        centre = (np.array(body.shape[1:]) - 1) / 2
        outside = np.hypot(rows - centre[0], columns - centre[1]) > min(body.shape[1:]) / 2
        out[:, outside] = settings.padding
    return out


def _thickness(plane, pixel):
    """(H, W) amount of tissue within some 35 mm of each pixel, 1 for soft tissue all around."""
    small = cv2.resize(np.clip(plane, -1000, 100), None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small / 1000 + 1, (0, 0), 34 / pixel / 8)
    return cv2.resize(small, plane.shape[::-1])


def _kernel(white, fine, coarse):
    """White noise through a band-pass like the noise power of a filtered back-projection."""
    low = cv2.GaussianBlur(white, (0, 0), max(fine, 0.2))
    return low - 0.75 * cv2.GaussianBlur(white, (0, 0), coarse)


def _slow(shape, rng):
    small = rng.standard_normal((4, 4)).astype(np.float32)
    return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
