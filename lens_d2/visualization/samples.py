"""Training samples as pictures: the central slice with the boxes known on it, and those that a model finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..structures.status import BoxStatus
from .planes import choose_window
from .sheets import DASHED, DOTTED, SOLID, BoxStyle, add_legend, draw_box, make_sheet, show_slice

INCHES, COLUMNS = 3.6, 4  # of one sample on a sheet; samples side by side

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
    """A sample to be drawn.

    Attributes:
        hu: (H, W) its central slice.
        boxes: {name in :data:`STYLES`: (n, 4) XYXY_ABS in the sample's image}.
        title: above it.
        scores: (n,) of the boxes of the kind "detection".
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
    """(n, 4) targets of a sample by the names of :data:`STYLES`."""
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
            draw_box(axes, box, STYLES[name], text)
    height, width = picture.hu.shape
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))  # whatever sticks out


def sheet(pictures: Sequence[SamplePicture], kinds: Sequence[str], columns: int = COLUMNS) -> Figure:
    """Samples side by side.

    Args:
        pictures: at least one; all get the room of the tallest.
        kinds: names in :data:`STYLES` for the legend.
        columns: samples side by side, at most.
    """
    tallest = max(each.hu.shape[0] / each.hu.shape[1] for each in pictures)
    figure, grid = make_sheet(len(pictures), columns, INCHES, tallest)
    for axes, picture in zip(grid, pictures, strict=True):
        draw_sample(axes, picture)
    add_legend(figure, [STYLES[kind] for kind in kinds])
    return figure
