"""Training samples as pictures: the central slice with the boxes known on it, and those that a model finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..structures.status import BoxStatus
from .detections import DASHED, DOTTED, SOLID, choose_window, draw_box, show_slice

INCHES, DPI, COLUMNS = 3.6, 100, 4  # of one sample on a sheet; samples side by side


@dataclass(frozen=True)
class BoxStyle:
    """How boxes of one kind are drawn: colour, matplotlib's line style, and what the legend calls them."""

    color: str
    line: str | tuple
    label: str


# Colours after Okabe and Ito, which colour-blind people tell apart; the lines differ as well.
STYLES = {
    "annotation": BoxStyle("#56b4e9", SOLID, "annotation"),
    "mined": BoxStyle("#f0e442", SOLID, "mined annotation"),
    "uncertain": BoxStyle("#e59ac6", DASHED, "uncertain region"),
    "hard_negative": BoxStyle("#f0803c", DOTTED, "hard negative"),
    "detection": BoxStyle("#2fd6a3", SOLID, "detection"),
}
STYLE_OF_STATUS = {
    BoxStatus.LESION: "annotation",
    BoxStatus.UNCERTAIN: "uncertain",
    BoxStatus.HARD_NEGATIVE: "hard_negative",
}


@dataclass(frozen=True)
class SamplePicture:
    """What is drawn of a sample.

    Attributes:
        hu: (H, W) its central slice.
        boxes: {name in :data:`STYLES`: (n, 4) XYXY_ABS in the sample's image}.
        title: above it. scores: (n,) of the boxes of the kind "detection".
    """

    hu: np.ndarray
    boxes: Mapping[str, np.ndarray]
    title: str
    scores: Sequence[float] = ()


def central_slice(sample: dict, hu_window: tuple[float, float]) -> np.ndarray:
    """(H, W) HU of a sample of :class:`lens_d2.data.mapper.SliceMapper`; what it clipped stays clipped."""
    low, high = hu_window
    image = sample["image"]
    return image[image.shape[0] // 2].cpu().numpy() * ((high - low) / 255.0) + low


def boxes_by_status(sample: dict) -> dict[str, np.ndarray]:
    """The targets of a sample, by the names of :data:`STYLES`."""
    boxes, status = sample["instances"].gt_boxes.tensor.numpy(), sample["instances"].gt_status.numpy()
    return {name: boxes[status == int(kind)] for kind, name in STYLE_OF_STATUS.items()}


def draw_sample(axes: Axes, picture: SamplePicture) -> None:
    """Draw a sample in the display window that suits its first box."""
    drawn = [box for boxes in picture.boxes.values() for box in boxes]
    window = choose_window(picture.hu, drawn[0] if drawn else None)
    show_slice(axes, picture.hu, window, picture.title)
    for name, boxes in picture.boxes.items():
        scores = [f"{score:.2f}" for score in picture.scores] if name == "detection" else [""] * len(boxes)
        for box, text in zip(boxes, scores, strict=True):
            draw_box(axes, box, STYLES[name].color, text, STYLES[name].line)
    height, width = picture.hu.shape
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))  # whatever sticks out


def sheet(pictures: Sequence[SamplePicture], kinds: Sequence[str], columns: int = COLUMNS) -> Figure:
    """Samples side by side with a legend of the kinds of boxes; all axes have the size of the largest."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    tallest = max(each.hu.shape[0] / each.hu.shape[1] for each in pictures)
    size = INCHES * columns, (INCHES * tallest + 0.3) * rows + 0.4
    figure = Figure(figsize=size, dpi=DPI, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, picture in zip(grid, pictures, strict=False):
        draw_sample(axes, picture)
    for axes in grid[len(pictures) :]:
        axes.set_axis_off()
    styles = [STYLES[kind] for kind in kinds]
    lines = [Line2D([], [], color=style.color, ls=style.line, label=style.label) for style in styles]
    legend = {"loc": "outside lower center", "ncols": len(lines), "frameon": False, "labelcolor": "white"}
    figure.legend(handles=lines, fontsize=8, **legend)
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8 of a figure."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
