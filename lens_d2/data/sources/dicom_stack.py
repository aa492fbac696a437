"""The places of a scan's slices in a regular stack: at one interval, without repeats, without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...io.errors import DataError, count_of
from .dicom_file import MARKS, Frame
from .dicom_series import SAME_PLACE, heights

MAX_GAP = 2  # adjacent missing slices that may be interpolated
# Parts of the interval by which slices may be off their places, without and with a warning. The effect of rounded
# positions comes on top.
UNNOTICED, TOLERATED = 0.01, 0.1


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in regular places.

    Attributes:
        frames: the slices that exist, upwards along their normal.
        places: (n,) index of each.
        step: (3,) LPS mm from one place to the next; not along the normal if the gantry was tilted.
        warnings: oddities of the places, a line each.
    """

    frames: Sequence[Frame]
    places: np.ndarray
    step: np.ndarray
    warnings: Sequence[str] = field(default=())

    @property
    def size(self) -> tuple[int, int, int]:
        """Columns, rows, places."""
        return (*self.frames[0].size, int(self.places[-1]) + 1)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) index (i, j, k) -> LPS mm."""
        first = self.frames[0]
        affine = np.eye(4)
        affine[:3, :2] = first.orientation.T * first.spacing
        affine[:3, 2], affine[:3, 3] = self.step, first.position
        return affine

    @property
    def missing(self) -> np.ndarray:
        """(m,) places without a slice."""
        return np.setdiff1d(np.arange(self.size[2]), self.places)


def arrange(path: Path, frames: Sequence[Frame], fill_gaps: bool = False) -> Stack:
    """Find the places of slices.

    Args:
        path: named by errors unless a single slice is at fault.
        frames: of one shape, upwards along their normal.
        fill_gaps: accept up to MAX_GAP missing slices in a row.

    Raises:
        DataError: there is only one slice, or slices lie at the same place, are missing, or are off any regular
            place.
    """
    if len(frames) < 2:
        fault = "a single slice has no slice interval: a scan is the folder with all slices of a series"
        raise DataError(path, fault)
    steps = np.diff(heights(frames))
    _refuse_repeats(frames, steps)
    interval, lower = float(np.median(steps)), float(np.quantile(steps, 0.5, method="lower"))
    if interval > 1.5 * lower:  # the mean of two that differ by more than rounding
        interval = lower
    jumps = np.maximum(np.rint(steps / interval), 1).astype(int)
    places = np.concatenate([[0], np.cumsum(jumps)])
    positions = np.array([frame.position for frame in frames])
    step = (positions[-1] - positions[0]) / places[-1]
    warnings = _check_gaps(path, frames, steps, jumps, interval, fill_gaps)
    warnings += _check_places(frames, positions, places, step, interval)
    return Stack(frames, places, step, warnings)


def _refuse_repeats(frames: Sequence[Frame], steps: np.ndarray) -> None:
    repeated = np.flatnonzero(steps < SAME_PLACE)
    if len(repeated):
        below, above = frames[repeated[0]], frames[repeated[0] + 1]
        raise DataError(
            above.path,
            f"irregular slice spacing: {above.name} lies where {below.name} lies, with other pixels "
            f"({len(repeated)} of {len(frames)} slices do), and no element tells them apart, such as {MARKS[0]}",
        )


def _check_gaps(path, frames, steps, jumps, interval: float, fill_gaps: bool) -> list[str]:
    """A warning of missing slices; DataError unless they may be filled in."""
    gaps = np.flatnonzero(jumps > 1)
    if not len(gaps):
        return []
    widest = gaps[np.argmax(jumps[gaps])]
    below, above, missing = frames[widest].name, frames[widest + 1].name, int((jumps - 1).sum())
    if jumps[widest] - 1 > MAX_GAP or not fill_gaps:
        too_wide = f"more than {MAX_GAP} in a row are never filled in"
        advice = f"--fill-gaps interpolates up to {MAX_GAP} in a row" if jumps[widest] - 1 <= MAX_GAP else too_wide
        apart = f"{steps[widest]:.4g} mm from {below} to {above}, {interval:.4g} mm elsewhere"
        raise DataError(
            path,
            f"irregular slice spacing: {apart}; {count_of(missing, 'slice')} missing ({advice})",
        )
    lowest = heights(frames)
    where = ", ".join(f"{lowest[gap]:.4g} and {lowest[gap + 1]:.4g} mm" for gap in gaps)
    return [f"{count_of(missing, 'slice')} missing between {where} along the scan: interpolated from those beside"]


def _check_places(
    frames, positions: np.ndarray, places: np.ndarray, step: np.ndarray, interval: float
) -> list[str]:
    """A warning of slices that are slightly off their places; DataError if they are far off."""
    off = np.linalg.norm(positions - positions[0] - places[:, None] * step, axis=1)
    mean = float(np.linalg.norm(step))
    worst = int(np.argmax(off))
    rounding = 2 * np.linalg.norm(_rounding(frames, positions))
    if off[worst] > rounding + TOLERATED * interval:
        frame = frames[worst]
        raise DataError(
            frame.path,
            f"irregular slice spacing: {frame.name} lies {off[worst]:.3g} mm off its place in a regular stack of "
            f"{mean:.4g} mm (missing, shifted or foreign slices?)",
        )
    if off[worst] > rounding + UNNOTICED * interval:
        return [f"slices lie up to {off[worst]:.2g} mm off a regular interval of {mean:.4g} mm: taken as regular"]
    return []


def _rounding(frames: Sequence[Frame], positions: np.ndarray) -> np.ndarray:
    """(3,) mm by which written positions may differ from the true ones; 0 along axes where all are the same."""
    decimals = np.array([frame.decimals for frame in frames]).max(axis=0)
    return np.where(np.ptp(positions, axis=0) > 0, 0.5 * 10.0**-decimals, 0.0)
