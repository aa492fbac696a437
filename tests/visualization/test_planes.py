"""Planes as pictures: windows, crops beyond the edge, colours."""

import base64

import cv2
import numpy as np
import pytest

from lens_d2.visualization.planes import (
    WINDOWS,
    Encoding,
    Plane,
    choose_window,
    crop,
    draw,
    name_edges,
    score_color,
    score_hex,
)


def turned(degrees: float, axis: int) -> np.ndarray:
    """(4, 4) affine of a cache frame that is turned about one of the patient's axes."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine, (a, b) = np.eye(4), [i for i in range(3) if i != axis]
    affine[a, a] = affine[b, b] = cosine
    affine[a, b], affine[b, a] = -sine, sine
    return affine @ np.diag([0.8, 0.8, 3.0, 1.0])


@pytest.mark.parametrize(
    ("affine", "edges"),
    [
        (np.eye(4), {"axial": "R L A P", "coronal": "R L H F", "sagittal": "A P H F"}),
        (turned(14, 2), {"axial": "R L A P", "coronal": "R L H F", "sagittal": "A P H F"}),
        (turned(40, 2), {"axial": "RA LP AL PR", "coronal": "RA LP H F", "sagittal": "AL PR H F"}),
        (turned(-30, 0), {"axial": "R L AH PF", "coronal": "R L HP FA", "sagittal": "AH PF HP FA"}),
    ],
)
def test_letters_at_the_edges_are_the_patients_sides(affine, edges):
    assert name_edges(affine) == {plane: tuple(text.split()) for plane, text in edges.items()}


def test_window_suits_the_tissue():
    hu = np.full((60, 60), 40.0)
    assert choose_window(hu, np.array([20, 20, 30, 30])) == "soft tissue"
    hu[15:35, 15:35], hu[22:28, 22:28] = -850, 20
    assert choose_window(hu, np.array([21, 21, 29, 29])) == "lung"
    hu[:] = 40
    hu[20:26, 20:30] = 700
    assert choose_window(hu, np.array([20, 20, 30, 30])) == "bone"
    assert choose_window(hu, None) == "soft tissue"


@pytest.mark.parametrize("center", [(5, 5), (0, 19), (-300, 400)])
def test_a_crop_has_its_size_wherever_it_lies(center):
    plane = crop(np.arange(400.0).reshape(20, 20), (1.0, 2.0), center, 12)
    assert plane.hu.shape == (12, 6)
    (above, below), (left, right) = plane.padding
    inside = plane.hu[above : 12 - below, left : 6 - right]
    row, column = max(plane.start[0], 0), max(plane.start[1], 0)
    assert inside.size and inside[0, 0] == 20 * row + column


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_plane_in_its_window_upright(suffix):
    """Brighter from row to row; coronal planes stand on the feet."""
    low, high = WINDOWS["bone"]
    plane = Plane(np.linspace(low, high, 30).repeat(30).reshape(30, 30), (1.0, 1.0))
    for orientation in ("axial", "coronal"):
        picture = draw(orientation, plane, WINDOWS["bone"], [(1, 0.5, (3, 6, 9, 12))], 60, "", Encoding(suffix))
        data = base64.b64decode(picture.uri.split(",")[1])
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image.shape == (60, 60)
        top, bottom = int(image[0].mean()), int(image[-1].mean())
        assert (top, bottom) == (pytest.approx(0, abs=6), pytest.approx(255, abs=6)) or orientation == "coronal"
        assert (top < bottom) == (orientation == "axial")
        (frame,) = picture.frames
        assert (frame.left, frame.width, frame.height) == (10, 20, 20)
        assert frame.top == (20 if orientation == "axial" else 60)


def test_colors_follow_the_score():
    assert score_hex(0) == "#ffe859" and score_hex(1) == "#ff3d3d"
    greens = [score_color(score)[1] for score in np.linspace(0, 1, 11)]
    assert greens == sorted(greens, reverse=True)
    assert all(0 <= channel <= 1 for score in (0, 0.3, 1) for channel in score_color(score))
