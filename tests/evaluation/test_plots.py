"""Every plot is a picture, with and without values."""

import cv2
import numpy as np
import pytest

from lens_d2.evaluation import plots

FPS, SENSITIVITY = [0.125, 1.0, 8.0], [0.1, 0.4, 0.8]
CURVE = {"curve": (FPS, SENSITIVITY), "fps": FPS, "sensitivity": SENSITIVITY, "average": 0.43}
ENDS = np.array([0.1, 0.5]), np.array([1.0, 0.6])
NO_CURVE = {**CURVE, "curve": ([], [])}
PLOTS = {
    "froc": lambda path: plots.plot_froc(
        path, {"a": CURVE | {"ci": [[0, 0.2]] * 3}, "nothing found": NO_CURVE, "_a$x_{$": CURVE}
    ),
    "precision_recall": lambda path: plots.plot_precision_recall(path, *ENDS[::-1], 0.5, given_recall=0.3),
    "nothing found": lambda path: plots.plot_precision_recall(path, np.zeros(0), np.zeros(0), 0.0),
    "harvest": lambda path: plots.plot_harvest(path, {"Round by round": {"P_H,1": ENDS}}, 0.5),
    "embedding": lambda path: plots.plot_embedding(
        path, np.random.default_rng(0).random((8, 2)), np.array(["lung", "liver"] * 4), np.arange(8) > 5
    ),
    "panels": lambda path: plots.plot_panels(
        path, {"a": {"joint": {10: [0.2, 0.3], 50: [0.4]}, "single": {10: [0.1]}}, "b": {}}, "Volumes", "AP", "T"
    ),
    "violin": lambda path: plots.plot_violin(path, {"a": np.array([0.2, 0.7]), "b": np.zeros(0)}, "IoU", "3D IoU"),
    "concordance": lambda path: plots.plot_concordance(
        path, {"P3D": {"pearson": None, "points": {"a": ENDS}}}, "3D IoU"
    ),
}


def test_rates_are_fractions_where_they_are_one():
    assert [plots._fraction(value) for value in (0.125, 0.5, 1 / 3, 1.0, 8.0)] == ["1/8", "1/2", "1/3", "1", "8"]
    assert [plots._fraction(value) for value in (0.4, 0.75, 0.9)] == ["0.4", "0.75", "0.9"]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_picture(name, tmp_path):
    PLOTS[name](tmp_path / "plot.png")
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture.shape[0] > 500 and picture.shape[1] > 500 and picture.std() > 5


@pytest.mark.filterwarnings("error")
def test_panels_of_nothing_found_have_an_axis(tmp_path):
    plots.plot_panels(tmp_path / "panels.png", {"LUNA": {"single": {10: [0.0]}}}, "Volumes (%)", "Average", "None")
    assert (tmp_path / "panels.png").stat().st_size > 5_000
