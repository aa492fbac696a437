"""Sheets of slices with boxes on them and a legend below, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from .planes import WINDOWS

DPI = 100
SOLID, DASHED, DOTTED = "solid", (0, (3, 2)), (0, (1, 1.5))  # matplotlib's line styles


@dataclass(frozen=True)
class BoxStyle:
    """Look of the boxes of one kind.

    Attributes:
        color: a colour that matplotlib knows.
        line: its style of lines.
        label: name in the legend.
    """

    color: str
    line: str | tuple
    label: str


def make_sheet(count: int, columns: int, inches: float, aspect: float) -> tuple[Figure, list[Axes]]:
    """Black sheet with room for pictures side by side.

    Args:
        count: pictures, at least one.
        columns: pictures side by side, at most.
        inches: width of each.
        aspect: height of each by its width.

    Returns:
        The figure, and axes for each picture.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    size = inches * columns, (inches * aspect + 0.3) * rows + 0.4
    figure = Figure(figsize=size, dpi=DPI, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    return figure, grid[:count]


def add_legend(figure: Figure, styles: Sequence[BoxStyle]) -> None:
    """Explain the boxes of a sheet below its pictures."""
    lines = [Line2D([], [], color=style.color, ls=style.line, label=style.label) for style in styles]
    place = {"loc": "outside lower center", "ncols": len(lines), "frameon": False, "labelcolor": "white"}
    figure.legend(handles=lines, fontsize=8, **place)


def show_slice(axes: Axes, hu: np.ndarray, window: str, title: str = "") -> None:
    """Draw a slice in a display window.

    Args:
        axes: of a sheet.
        hu: (H, W) slice of the cache frame: seen from the feet, the patient's right on the left.
        window: name in :data:`WINDOWS`; it stands above the slice.
        title: in front of it.
    """
    low, high = WINDOWS[window]
    axes.imshow(hu, cmap="gray", vmin=low, vmax=high, interpolation="bicubic")
    label = f"{title}  ({window} window)" if title else f"{window} window"
    axes.set_title(label, fontsize=8, color="0.85", loc="left")


def draw_box(axes: Axes, box: np.ndarray, style: BoxStyle, text: str = "") -> None:
    """Draw a box on a slice.

    Args:
        axes: that :func:`show_slice` has drawn on.
        box: XYXY_ABS, pixel edges.
        style: of the box.
        text: beside its upper right corner.
    """
    x1, y1, x2, y2 = box - 0.5  # matplotlib counts pixels' centres
    place = {"fill": False, "ec": style.color, "lw": 1.2, "ls": style.line, "snap": False}
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **place))
    if text:
        axes.text(x2 + 1, y1, text, color=style.color, fontsize=6.5, va="bottom", ha="left", clip_on=True)


def draw_line(axes: Axes, ends: np.ndarray, color: str) -> None:
    """Draw a line on a slice.

    Args:
        axes: that :func:`show_slice` has drawn on.
        ends: (2, 2) x, y of its ends, pixel edges.
        color: that matplotlib knows.
    """
    axes.plot(*(np.asarray(ends) - 0.5).T, color=color, lw=1.0, solid_capstyle="butt")


def pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8 of a sheet."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
