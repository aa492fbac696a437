"""FROC of plain arrays is that of the same numbers in the protocols' files."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from lens_d2.evaluation import froc
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.readers import read_box_detections, read_lesion_boxes, read_marks, read_tracklets


@pytest.fixture
def golden(repo_root):
    return repo_root / "tests/golden"


def test_lens3d_is_that_of_the_files(golden):
    paths = [golden / "lens3d" / name for name in ("ground_truth.json", "predictions.json")]
    truth, predictions = (json.loads(path.read_text()) for path in paths)
    to_edges = np.array([0, 0, 0, 1, 1, 0.0])
    found = froc(
        {name: np.reshape(boxes, (-1, 6)) + to_edges for name, boxes in truth.items()},
        {name: np.reshape(rows, (-1, 7)) + [*to_edges, 0] for name, rows in predictions.items()},
        draws=20,
    )
    expected = read_lesion_boxes(paths[0])
    reference = PROTOCOLS.get("lens3d")().evaluate(expected, read_box_detections(paths[1], expected))
    assert found.metrics["sensitivity"] == reference.metrics["sensitivity"] != [0.0] * 7
    assert found.metrics["num_lesions"] == len(expected) and "sensitivity_ci" in found.metrics


def test_p3d_is_that_of_the_files(golden):
    paths = [golden / "p3d" / name for name in ("ground_truth.json", "predictions.json")]
    expected = read_marks(paths[0])
    tracklets = read_tracklets(paths[1], expected)
    reference = PROTOCOLS.get("p3d")().evaluate(expected, tracklets)
    truth = {
        name: expected.boxes[expected.volume == v][:, [2, 0, 1, 3, 4]] + [0, 0, 0, 1, 1]
        for v, name in enumerate(expected.volumes)
    }
    detections: dict[str, list] = {}
    for i, v in enumerate(tracklets.volume):
        rows = tracklets.slice_detection == i
        boxes = np.column_stack([tracklets.slice_z, tracklets.slice_boxes + [0, 0, 1, 1], tracklets.slice_scores])
        detections.setdefault(expected.volumes[v], []).append(boxes[rows])
    found = froc(truth, detections, "p3d")
    assert found.metrics["ap"] == reference.metrics["ap"] > 0
    assert found.metrics["sensitivity"] == reference.metrics["sensitivity"]


def test_luna16_counts_a_hit_within_the_radius():
    truth = {"a": [[0, 0, 0, 10]], "b": []}
    found = froc(truth, {"a": [[3, 0, 0, 0.9], [20, 0, 0, 0.5]], "b": [[1, 1, 1, 0.4]]}, "luna16", fps=(0.5, 1))
    assert found.metrics["sensitivity"] == [1.0, 1.0]
    assert froc(truth, {"a": [[6, 0, 0, 0.9]]}, "luna16", fps=1).metrics["sensitivity"] == [0.0]


@pytest.mark.parametrize(
    ("truth", "detections", "protocol", "message"),
    [
        ({"a": []}, {}, "coco", "no protocol 'coco'; there are lens3d, luna16, p3d"),
        ({"a": []}, {"b": []}, "lens3d", "detections in 'b', which the truth does not have"),
        ({"a": [[1, 2, 3]]}, {}, "lens3d", r"'a': an array of shape \(n, 6\) belongs here, not \(1, 3\)"),
        ({"a": []}, {"a": [[0, 0, 0, 1, 1, 1, np.nan]]}, "lens3d", "'a': numbers that are not finite"),
        ({"a": [[5, 0, 0, 1, 1, 1]]}, {}, "lens3d", "'a': a box that ends before it begins"),
        ({"a": []}, {"a": [[[0, 5, 5, 1, 9, 0.5]]]}, "p3d", "a box that ends before it begins"),
        ({"a": []}, {"a": [], 1: []}, "lens3d", "detections in 1, which the truth does not have"),
        ({"a": []}, {}, "lens3d", "the truth has no lesion"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth, detections, protocol, message):
    with pytest.raises(ValueError, match=message):
        froc(truth, detections, protocol)


@pytest.mark.parametrize(
    "options",
    [
        {"fps": []}, {"fps": [np.nan]}, {"fps": [-1]}, {"threshold": 2}, {"threshold": np.nan}, {"draws": 1.5},
        {"metric": ["IOU"]}, {"max_candidates": None}, {"max_candidates": 0},
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .* belong"):
        froc({"a": [[0, 0, 0, 1, 1, 1]]}, {}, **options)


def test_it_runs_without_torch_detectron2_and_simpleitk(repo_root):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'detectron2', 'SimpleITK']))\n"
        "from lens_d2.evaluation import froc\n"
        "box = [10, 10, 1, 20, 20, 3]\n"
        "print(froc({'a': [box]}, {'a': [[*box, 0.9]]}).metrics['average_sensitivity'])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("1.0\n", 0), run.stderr


MASKED = np.ma.masked_array([[0, 0, 0, 4, 4, 4, 0.9]], mask=True)


@pytest.mark.parametrize(
    ("truth", "found", "options", "message"),
    [
        ([[0, 0, 0, 4, 4, 4]], MASKED, {}, "'a': a masked array"),
        ([[0, 0, 0, 4, 4]], [np.zeros((0, 6))], {"protocol": "p3d"}, "'a': a detection without a box"),
        ([[0, 0, 0, 0]], [[0, 0, 0, 0.5]], {"protocol": "luna16"}, "'a': a nodule with the diameter 0"),
        ([[0, 0, 0, 4, 4, 4]], [], {"draws": -3}, "draws is -3"),
        ([[0, 0, 0, 4, 4, 4]], [], {"threshold": None}, "threshold is None"),
        ([[0, 0, 0, 4, 4, 4]], [], {"fps": ["1"]}, "fps is "),
        ([[0, 0, 0, 4, 4, 4]], [], {"metrics": "IOU"}, "no option 'metrics' of lens3d; did you mean metric"),
        ([[0, 0, 0, 4, 4, 4]], [[1, 2], [3]], {}, "'a': rows of different lengths"),
        ([[0, 0, 0, 4, 4, 4]], None, {}, "'a': None; a volume without boxes has an empty list"),
        ([[0, 0, 0, 4, 4]], 5, {"protocol": "p3d"}, "'a': a list of arrays belongs here, not 5"),
        (torch.zeros(1, 6, requires_grad=True), [], {}, "'a': no array"),
        ([[0, 0, 0, 4, 4]], None, {"protocol": "p3d"}, "'a': None; a volume without boxes has an empty list"),
        ([[0, 0, 0, 4, 4]], [None], {"protocol": "p3d"}, "'a', 0.*real numbers belong here, not object"),
        (np.zeros((1, 6), complex), [], {}, "'a': real numbers belong here, not complex"),
        (np.zeros((1, 6), bool), [], {}, "'a': real numbers belong here, not bool"),
        ([["0", 0, 0, 4, 4, 4]], [], {}, "'a': real numbers belong here"),
        ([[0, 0, 0, 4, 4, 10**400]], [], {}, "'a': a number above"),
        ([[0, 0, 0, 4, 4, 1e308]], [], {}, "'a': numbers that are not finite, or above 1e[+]40"),
    ],
)
def test_what_cannot_be_meant(truth, found, options, message):
    with pytest.raises(ValueError, match=message):
        froc({"a": truth}, {"a": found}, **options)


def test_a_nodule_of_unknown_diameter_has_10_mm():
    found = froc({"a": [[0, 0, 0, -1]]}, {"a": [[4.9, 0, 0, 0.9]]}, "luna16", fps=(1,))
    assert found.metrics["sensitivity"] == [1.0]


def test_p3d_of_two_volumes_whose_best_detection_is_wrong():
    """The curve begins with (1/2, 0) and (1/2, 1/2): nothing is found at fewer false positives than the first."""
    wrong = [[[3, 50 + i, 50, 60 + i, 60, 0.8]] for i in range(40)]
    box = [10, 10, 20, 20]
    found = [[[2, 50, 50, 60, 60, 0.99]], [[2, *box, 0.9]], *wrong, [[5, *box, 0.1]]]
    truth = {"a": [[2, *box], [5, *box]], "b": []}
    metrics = froc(truth, {"a": found}, "p3d", draws=20).metrics
    assert metrics["sensitivity"] == [0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert metrics["sensitivity_ci"][0] == [0, 0]
