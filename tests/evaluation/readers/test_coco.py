"""COCO's datasets and results: boxes on slices."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from lens_d2.evaluation import froc
from lens_d2.evaluation.readers import coco, read_boxes
from lens_d2.io.errors import DataError

IMAGES = [
    {"id": 7, "volume": "a", "slice": 2, "height": 99, "width": 99},
    {"id": 8, "volume": "a", "slice": 3, "height": 99, "width": 99},
    {"id": 9, "volume": "b", "slice": 0, "height": 99, "width": 99},
]
MARK = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40], "area": 1200, "iscrowd": 0}
OTHER = MARK | {"id": 2, "image_id": 8, "bbox": [60, 60, 20, 20]}
TRUTH = {"images": IMAGES, "annotations": [MARK, OTHER], "categories": [{"id": 1, "name": "lesion"}]}


def result(image: int, box: list, score: float, **more) -> dict:
    return {"image_id": image, "category_id": 1, "bbox": box, "score": score, **more}


# Descending score: a mark, a false positive in a, one in b, the other mark.
FOUND = [
    result(7, [10, 20, 30, 40], 0.9),
    result(8, [10, 20, 30, 40], 0.8),
    result(9, [1, 1, 5, 5], 0.7),
    result(8, [60, 60, 20, 22], 0.6),
]


def test_froc_by_hand(evaluate, write):
    truth, found = write("truth.json", TRUTH), write("found.json", FOUND)
    assert len(COCO(truth).loadRes(str(found)).getAnnIds()) == 4  # pycocotools reads the same files
    words = ["--protocol", "p3d", "--ground-truth", truth, "--predictions", found, "--fps", "0.5", "1"]
    status, metrics, error = evaluate(*words)
    assert status == 0 and metrics["sensitivity"] == [0.5, 0.5] and metrics["num_detections"] == 4, error
    assert metrics["recall_at_precision"]


def test_the_same_through_plain_arrays(write):
    truth = write("truth.json", TRUTH)
    marks, found = read_boxes(truth), read_boxes(write("found.json", FOUND), images=truth)
    metrics = froc(marks.arrays("p3d"), found.arrays("p3d"), "p3d", fps=(0.5, 2)).metrics
    assert metrics["sensitivity"][0] == 0.5 and metrics["num_lesions"] == 2


def test_track_ids_link_slices_and_nothing_else_does(write):
    images = write("truth.json", TRUTH)
    linked = [result(7, [1, 1, 5, 5], 0.3, track_id=4), result(8, [1, 1, 5, 5], 0.4, track_id=4), *FOUND]
    tracklets = read_boxes(write("found.json", linked), images=images).arrays("p3d")
    assert [len(rows) for rows in tracklets["a"]] == [2, 1, 1, 1]
    assert tracklets["a"][0].tolist() == [[2, 1, 1, 6, 6, 0.3], [3, 1, 1, 6, 6, 0.4]]


def test_file_names_place_images(write):
    images = [{"id": 1, "file_name": "x/y/103.png"}, {"id": 2, "file_name": "z/slice_004.nii.gz"}]
    boxes = read_boxes(write("truth.json", {"images": images, "annotations": [MARK | {"image_id": 1}]}))
    assert list(boxes.volumes) == ["x/y", "z"] and boxes.volumes["x/y"].voxels[0].tolist() == [
        10,
        20,
        103,
        40,
        60,
        103,
    ]


@given(st.tuples(*[st.floats(0, 500)] * 4))
def test_boxes_are_edges_from_0(box):
    rows = [MARK | {"bbox": list(box)}]
    first, _ = coco._volumes("f", rows, coco._places("f", TRUTH), is_result=False)
    x, y, width, height = box
    np.testing.assert_array_equal(first.voxels, [[x, y, 2, x + width, y + height, 2]])


def test_our_own_output_gives_the_same_numbers(golden, evaluate, tmp_path):
    """--coco writes what these readers take; each detection of p3d keeps its slices by track_id."""
    files = [golden / "p3d/ground_truth.json", golden / "p3d/predictions.json"]
    words = ["--protocol", "p3d", "--ground-truth", files[0], "--predictions", files[1]]
    expected = evaluate(*words, "--coco")[1]
    for name in ("coco_truth.json", "coco_predictions.json"):
        (tmp_path / "results" / name).rename(tmp_path / name)
    words = ["--protocol", "p3d", "--ground-truth", tmp_path / "coco_truth.json"]
    status, metrics, error = evaluate(*words, "--predictions", tmp_path / "coco_predictions.json")
    assert status == 0, error
    for key in ("sensitivity", "ap", "num_lesions", "num_detections"):
        assert metrics[key] == pytest.approx(expected[key]), key


def test_3d_protocols_refuse_slices(evaluate, write):
    words = ["--protocol", "lens3d", "--ground-truth", write("truth.json", TRUTH)]
    status, _, error = evaluate(*words, "--predictions", write("found.json", FOUND))
    assert status == 2 and "truth.json: holds boxes on single slices: the protocol p3d scores these" in error


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        (TRUTH, [result(3, [1, 1, 1, 1], 0.5)], "found.json: row 0: there is no image 3"),
        (TRUTH, [result(7, [1, 1, 1], 0.5)], "found.json: row 0: 5 numbers belong here"),
        (TRUTH, [result(7, [1, 1, -1, 1], 0.5)], "found.json: volume a, detection 0: x1 > x2"),
        (TRUTH, [result(7, [1, 1, 1, 1], float("nan"))], "found.json: row 0: the score is nan"),
        (TRUTH, [{key: x for key, x in FOUND[0].items() if key != "score"}], "row 0: None is not a number"),
        (TRUTH, [result(7, [1, 1, 1, 1], 0.5, track_id=[])], "found.json: row 0: track_id is a number or text"),
        (TRUTH, [3], "found.json: no list of annotations or results"),
        (TRUTH | {"images": [{"id": 1}]}, FOUND, "truth.json: image 1: neither volume and slice"),
        (
            TRUTH | {"images": [*IMAGES, IMAGES[0]]},
            FOUND,
            "truth.json: an image, or a slice of a volume, appears twice",
        ),
        (
            TRUTH | {"images": [{"id": 1, "volume": "a", "slice": 2.5, "file_name": "a/7.png"}]},
            FOUND,
            "truth.json: image 1: volume and slice are 'a' and 2.5: a name and a whole number",
        ),
        (TRUTH | {"images": [{"id": 1, "slice": 2, "file_name": "a/7.png"}]}, FOUND, "are None and 2"),
        (TRUTH | {"images": [{"id": 1, "volume": "a", "slice": 10**400}]}, FOUND, "of more than 18 digits"),
        (
            TRUTH | {"annotations": [MARK | {"score": 1}, OTHER]},
            FOUND,
            "row 1: has no score, and others",
        ),
        (
            TRUTH | {"annotations": [MARK, OTHER | {"score": 1}]},
            FOUND,
            "row 0: has no score, and others",
        ),
        (TRUTH | {"images": 3}, FOUND, "truth.json: no COCO dataset"),
        (TRUTH | {"annotations": [MARK | {"iscrowd": 1}]}, FOUND, "truth.json: row 0: a crowd"),
    ],
)
def test_damaged_files_are_refused_in_one_line(write, truth, found, message):
    images = write("truth.json", json.dumps(truth))
    with pytest.raises(DataError) as error:
        read_boxes(images)
        read_boxes(write("found.json", json.dumps(found)), images=images)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_results_need_the_dataset(write):
    with pytest.raises(DataError, match="results name images by number: name COCO's dataset by --images"):
        read_boxes(write("found.json", FOUND))


def test_a_slice_may_be_a_whole_float(write):
    images = [{"id": 7, "volume": "a", "slice": 2.0, "file_name": "a/103.png"}]
    boxes = read_boxes(write("truth.json", {"images": images, "annotations": [MARK]})).volumes["a"]
    assert boxes.voxels.tolist() == [[10, 20, 2, 40, 60, 2]]
