"""nnDetection's pickles and JSON, a file a case."""

import json
import pickle
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.foreign_boxes import AT_FPS, BOXES, GEOMETRY, LESIONS, SCORES, SENSITIVITY, SIZE, SPACING
from helpers.foreign_boxes import write_nndetection as write_pickles
from helpers.foreign_boxes import write_nndetection_json as write_json
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lens_d2.evaluation.readers import read_boxes, scan_axes, scan_geometry
from lens_d2.evaluation.readers.nndetection import to_array
from lens_d2.io.errors import DataError


def test_an_object_on_known_voxels():
    """Slices 3 to 5, rows 10 to 19, columns 40 to 41: nnDetection's ends are 2, 6; 9, 20; 39, 42."""
    assert to_array(np.array([[2.0, 9, 6, 20, 39, 42]])).tolist() == [[40, 10, 3, 42, 20, 6]]


@given(arrays(int, (5, 3), elements=st.integers(0, 500)), arrays(int, (5, 3), elements=st.integers(0, 50)))
def test_any_voxels_come_back(first, extent):
    """The ends of voxels a to b in z, y, x order are a - 1 and b + 1, as nnDetection makes them of masks."""
    low, high = first - 1, first + extent + 1
    boxes = np.stack([low[:, 2], low[:, 1], high[:, 2], high[:, 1], low[:, 0], high[:, 0]], axis=1)
    faces = to_array(boxes.astype(float))
    assert (faces[:, :3] == first).all() and (faces[:, 3:] - 1 == first + extent).all()


@given(arrays(float, (4, 6), elements=st.floats(-10, 100)))
def test_corners_stay_in_order(boxes):
    faces = to_array(np.sort(boxes.reshape(4, 3, 2), axis=2).reshape(4, 6)[:, [0, 2, 1, 3, 4, 5]])
    assert (faces[:, :3] <= faces[:, 3:]).all()


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


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 2, 0)], ids=["axial", "coronal", "sagittal"])
def test_boxes_follow_the_axes_of_the_scan(tmp_path, axes):
    """Files i, j, k of which run along the patient's axes in another order; their boxes are along i, j, k."""
    size, spacing = np.array(SIZE), np.array(SPACING)
    image = sitk.GetImageFromArray(np.zeros(size[list(axes)][::-1], np.int16))
    image.SetSpacing(spacing[list(axes)].tolist())
    image.SetDirection(np.eye(3)[:, list(axes)].ravel().tolist())
    sitk.WriteImage(image, tmp_path / "a.nii.gz")
    low, high = np.array([10, 20, 2]), np.array([20, 28, 5])  # faces along x, y, z
    i, j, k = zip(low[list(axes)] - 1, high[list(axes)], strict=True)
    box = [k[0], j[0], k[1], j[1], *i]
    place = {
        "original_size_of_raw_data": size[list(axes)][::-1],
        "itk_spacing": image.GetSpacing(), "itk_origin": (0.0, 0.0, 0.0), "itk_direction": image.GetDirection(),
    }  # fmt: skip
    content = {"pred_boxes": np.array([box], float), "pred_scores": np.ones(1), "restore": True, **place}
    (tmp_path / "a_boxes.pkl").write_bytes(pickle.dumps(content))
    (tmp_path / "json").mkdir()
    (tmp_path / "json/a_boxes.json").write_text(json.dumps({"1": {"box": list(map(int, box)), "score": 1.0}}))
    known = read_boxes(tmp_path / "a_boxes.pkl")
    located = read_boxes(tmp_path / "json").locate(partial(scan_geometry, tmp_path), partial(scan_axes, tmp_path))
    for found in (known, located):
        (volume,) = found.volumes.values()
        assert volume.voxels.tolist() == [[10, 20, 2, 20, 28, 4]]
        np.testing.assert_allclose(
            volume.world, [[*((low - 0.5) * spacing), *((high - 0.5) * spacing)]], atol=1e-4
        )


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
