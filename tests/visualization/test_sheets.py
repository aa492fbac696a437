"""Sheets: room for every picture, boxes in their place."""

import numpy as np
import pytest

from lens_d2.visualization.sheets import SOLID, BoxStyle, draw_box, draw_line, make_sheet, pixels, show_slice


@pytest.mark.parametrize("count, rows", [(1, 1), (4, 1), (5, 2)])
def test_every_picture_has_room(count, rows):
    figure, grid = make_sheet(count, 4, 2.0, 1.5)
    assert len(grid) == count
    width, height = figure.get_size_inches()
    assert (width, height) == (2.0 * min(count, 4), pytest.approx(3.3 * rows + 0.4))
    assert pixels(figure).shape == (round(100 * height), round(100 * width), 3)


def test_a_box_lies_around_its_pixels():
    """Pixel edges: the box 2, 4, 6, 9 surrounds the pixels 2 to 5 of the rows 4 to 8."""
    figure, (axes,) = make_sheet(1, 1, 4.0, 1.0)
    hu = np.full((20, 20), -160.0)
    hu[4:9, 2:6] = 240
    show_slice(axes, hu, "soft tissue", "slice 3")
    draw_box(axes, np.array([2.0, 4, 6, 9]), BoxStyle("#ff0000", SOLID, "box"), "0.5")
    assert axes.get_title(loc="left") == "slice 3  (soft tissue window)"
    (patch,) = axes.patches
    assert (*patch.get_xy(), patch.get_width(), patch.get_height()) == (1.5, 3.5, 4, 5)


def test_a_line_ends_where_its_points_are():
    """Pixel edges: 0.5, 0.5 is the centre of the first pixel."""
    _, (axes,) = make_sheet(1, 1, 4.0, 1.0)
    draw_line(axes, np.array([[0.5, 0.5], [10.5, 4.5]]), "#ff0000")
    (line,) = axes.get_lines()
    assert line.get_xydata().tolist() == [[0, 0], [10, 4]]
