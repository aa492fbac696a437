"""nnDetection's pickles and JSON, a file a case."""

import pickle

import numpy as np
import pytest
from helpers.foreign_boxes import AT_FPS, BOXES, GEOMETRY, LESIONS, SCORES, SENSITIVITY
from helpers.foreign_boxes import write_nndetection as write_pickles
from helpers.foreign_boxes import write_nndetection_json as write_json
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lens_d2.evaluation.readers import read_boxes
from lens_d2.evaluation.readers.nndetection import to_voxels
from lens_d2.io.errors import DataError


def test_an_object_on_known_voxels():
    """Slices 3 to 5, rows 10 to 19, columns 40 to 41: nnDetection's ends are 2, 6; 9, 20; 39, 42."""
    assert to_voxels(np.array([[2.0, 9, 6, 20, 39, 42]])).tolist() == [[40, 10, 3, 42, 20, 5]]


@given(arrays(int, (5, 3), elements=st.integers(0, 500)), arrays(int, (5, 3), elements=st.integers(0, 50)))
def test_any_voxels_come_back(first, extent):
    """The ends of voxels a to b in z, y, x order are a - 1 and b + 1, as nnDetection makes them of masks."""
    low, high = first - 1, first + extent + 1
    boxes = np.stack([low[:, 2], low[:, 1], high[:, 2], high[:, 1], low[:, 0], high[:, 0]], axis=1)
    x1, y1, z1, x2, y2, z2 = to_voxels(boxes.astype(float)).T
    assert (np.stack([x1, y1, z1], 1) == first).all()
    assert (np.stack([x2 - 1, y2 - 1, z2], 1) == first + extent).all()


@given(arrays(float, (4, 6), elements=st.floats(-10, 100)))
def test_corners_stay_in_order(boxes):
    voxels = to_voxels(np.sort(boxes.reshape(4, 3, 2), axis=2).reshape(4, 6)[:, [0, 2, 1, 3, 4, 5]])
    assert (voxels[:, :3] <= voxels[:, 3:]).all()


@pytest.mark.parametrize("write_files", [write_pickles, write_json])
def test_froc_by_hand(write_files, evaluate, write, tmp_path):
    truth = {name: (np.reshape(rows, (-1, 6)) - [0, 0, 0, 1, 1, 0]).tolist() for name, rows in LESIONS.items()}
    words = ["--protocol", "lens3d", "--ground-truth", write("truth.json", truth), *AT_FPS]
    status, metrics, error = evaluate(*words, "--predictions", write_files(tmp_path / "found"))
    assert status == 0 and metrics["sensitivity"] == SENSITIVITY, error


def test_pickles_know_the_world(tmp_path):
    found = read_boxes(write_pickles(tmp_path / "found"))
    for name, volume in found.volumes.items():
        assert volume.voxels.tolist() == BOXES[name] and volume.scores.tolist() == pytest.approx(SCORES[name])
        np.testing.assert_allclose(volume.world, GEOMETRY.boxes3d_to_world(BOXES[name]))
    assert not read_boxes(write_json(tmp_path / "json")).knows("world")


def test_a_series_gets_its_dots_back(tmp_path):
    (write_pickles(tmp_path / "found") / "a_boxes.pkl").rename(tmp_path / "found/1_3_6_1_4_1_14519_boxes.pkl")
    assert list(read_boxes(tmp_path / "found").volumes) == ["1.3.6.1.4.1.14519", "b"]


class Malicious:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"restore": False}, "boxes of the preprocessed scan: predict with restore=True"),
        ({"pred_scores": [0.5]}, "boxes need as many scores"),
        ({"pred_boxes": np.zeros((1, 4))}, "6 numbers belong here"),
        ({"pred_boxes": np.full((1, 6), np.nan)}, "not a finite number"),
        ({"itk_spacing": (1, 0, 1)}, "no size, spacing, origin and direction of the scan"),
        ({"itk_origin": None}, "no size, spacing, origin and direction of the scan"),
        ({"pred_labels": Malicious()}, "print"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, capsys, changes, message):
    with pytest.raises(DataError) as error:
        read_boxes(write_pickles(tmp_path / "found", **changes))
    assert message in str(error.value) and "_boxes.pkl" in str(error.value) and "\n" not in str(error.value)
    assert "this must not run" not in capsys.readouterr().out


def test_cut_pickles_are_refused(tmp_path):
    path = write_pickles(tmp_path / "found") / "a_boxes.pkl"
    data = path.read_bytes()
    for cut in (1, 20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match="a_boxes.pkl"):
            read_boxes(path, "nndetection")
    for content in ([], {"1": 3}, {"1": {"box": [1, 2, 3], "score": 0.5}}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match="a_boxes.pkl"):
            read_boxes(path, "nndetection")
