"""MONAI's JSON: centres and sizes in the world."""

import json

import numpy as np
import pytest
from helpers.foreign_boxes import AT_FPS, BOXES, GEOMETRY, LESIONS, SCORES, SENSITIVITY, monai_entries
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lens_d2.evaluation.readers import read_boxes
from lens_d2.evaluation.readers.monai import RAS_TO_LPS
from lens_d2.io.errors import DataError


def test_a_box_is_centre_and_size(write):
    path = write(
        "found.json", {"validation": [{"image": "s/1.2.nii.gz", "box": [[1, 2, 3, 4, 6, 8]], "label": [0]}]}
    )
    volume = read_boxes(path).volumes["1.2"]
    assert volume.world.tolist() == [[-1, -1, -1, 3, 5, 7]] and volume.scores is None
    turned = read_boxes(path, "monai_ras").volumes["1.2"]
    assert turned.world.tolist() == [[-3, -5, -1, 1, 1, 7]]


@given(arrays(float, (3, 6), elements=st.floats(0.5, 300)))
def test_the_world_and_voxels_and_back(corners):
    voxels = np.hstack([corners[:, :3], corners[:, :3] + corners[:, 3:]])
    (entry,) = monai_entries({"a": voxels})
    centre, size = np.split(np.array(entry["box"]), 2, axis=1)
    back = GEOMETRY.boxes3d_from_world(np.hstack([centre - size / 2, centre + size / 2]))
    np.testing.assert_allclose(back, voxels, atol=1e-6)


def test_froc_by_hand(evaluate, write):
    """Truth and predictions in millimetres: the scans are not needed."""
    truth = write("truth.json", {"validation": monai_entries(LESIONS)})
    found = write("found.json", {"validation": monai_entries(BOXES, SCORES)})
    words = ["--protocol", "lens3d", "--ground-truth", truth, "--predictions", found]
    status, metrics, error = evaluate(*words, *AT_FPS)
    assert status == 0 and metrics["sensitivity"] == SENSITIVITY, error
    status, _, error = evaluate(*words, "--coco")
    assert status == 2 and "--coco: needs voxels" in error


def test_either_direction_of_the_axes(evaluate, write):
    truth = write("truth.json", {"training": [], "validation": monai_entries(LESIONS, to_world=RAS_TO_LPS)})
    found = write("found.json", {"validation": monai_entries(BOXES, SCORES)})
    words = ["--protocol", "lens3d", "--ground-truth", truth, "--predictions", found, "--split", "val", *AT_FPS]
    assert evaluate(*words, "--truth-format", "monai_ras")[1]["sensitivity"] == SENSITIVITY
    assert evaluate(*words)[1]["sensitivity"] == [0, 0]


def test_candidates_of_luna16(evaluate, write):
    """The boxes' centres; a nodule of 10 mm at the centre of each lesion."""
    world = GEOMETRY.boxes3d_to_world(LESIONS["a"])
    rows = [f"a,{','.join(map(str, centre))},10" for centre in ((world[:, :3] + world[:, 3:]) / 2).tolist()]
    truth = write("truth.csv", "\n".join(["seriesuid,coordX,coordY,coordZ,diameter_mm", *rows]))
    found = write("found.json", {"validation": monai_entries(BOXES, SCORES)})
    words = ["--protocol", "luna16", "--ground-truth", truth, "--seriesuids", write("series.csv", "a\nb\n")]
    status, metrics, error = evaluate(*words, "--predictions", found, *AT_FPS)
    assert status == 0 and metrics["sensitivity"] == SENSITIVITY, error


@pytest.mark.parametrize("text", ['{"validation": []}', '{\n "training": [ ], "validation": []}'])
def test_a_detector_that_has_found_nothing(evaluate, write, text):
    truth = write("truth.json", {"validation": monai_entries(LESIONS)})
    words = ["--protocol", "lens3d", "--ground-truth", truth, "--predictions", write("found.json", text)]
    status, metrics, error = evaluate(*words, "--split", "val")
    assert status == 0 and metrics["average_sensitivity"] == 0 and "2 of 2 volumes have no predictions" in error


ENTRY = {"image": "a.nii.gz", "box": [[1, 2, 3, 4, 5, 6]], "score": [0.5]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"validation": [ENTRY | {"score": []}]}, "volume a: 1 boxes need as many scores"),
        ({"validation": [ENTRY | {"score": ["x"]}]}, "volume a, score 0: 'x' is not a number"),
        ({"validation": [ENTRY | {"box": [[1, 2, 3]]}]}, "volume a, box 0: 6 numbers belong here"),
        ({"validation": [ENTRY | {"box": [[1, 2, 3, -4, 5, 6]]}]}, "volume a, detection 0: x1 > x2"),
        ({"validation": [ENTRY | {"box": [[1, 2, float("nan"), 4, 5, 6]]}]}, "centre z is nan"),
        ({"validation": [ENTRY, ENTRY]}, "volume a appears twice"),
        ({"validation": [{"image": 3, "box": []}]}, "entry 0: no image and boxes"),
        (
            {"training": [ENTRY], "validation": [ENTRY]},
            "has the lists training, validation: choose one by --split",
        ),
        ({"image": 1, "box": 2}, "has no list of images"),
    ],
)
def test_damaged_files_are_refused_in_one_line(write, content, message):
    with pytest.raises(DataError) as error:
        read_boxes(write("found.json", json.dumps(content)))
    assert message in str(error.value) and "found.json" in str(error.value) and "\n" not in str(error.value)
