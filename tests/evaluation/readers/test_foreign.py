"""From other programs' boxes to the protocols: frames, volumes, folders."""

import copy
import json
import pickle
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from helpers.foreign_boxes import (
    AFFINE,
    AT_FPS,
    BOXES,
    GEOMETRY,
    LESIONS,
    SCORES,
    SENSITIVITY,
    SIZE,
    monai_entries,
    table_text,
    write_nndetection,
)
from helpers.scan_files import write_volume

from lens_d2.evaluation import froc
from lens_d2.evaluation.readers import (
    BOX_READERS,
    ForeignBoxes,
    VolumeBoxes,
    find_reader,
    find_scan,
    read_boxes,
    scan_geometry,
)
from lens_d2.io.errors import DataError
from lens_d2.io.pickles import load_pickle
from lens_d2.io.tables import VOXEL_COLUMNS, WORLD_COLUMNS


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in LESIONS:
        write_volume(folder / f"{name}.nii.gz", np.zeros(SIZE[::-1], np.int16), AFFINE)
    return folder


@pytest.mark.parametrize("world_truth", [False, True])
def test_the_scans_bring_voxels_and_millimetres_together(evaluate, write, scans, world_truth):
    files = [
        write("truth.csv", table_text(LESIONS, None, world=world_truth)),
        write("found.csv", table_text(BOXES, SCORES, world=not world_truth)),
    ]
    words = ["--protocol", "lens3d", "--ground-truth", files[0], "--predictions", files[1], *AT_FPS]
    status, _, error = evaluate(*words)
    assert status == 2 and "name the folder of the scans by --scans" in error
    status, metrics, error = evaluate(*words, "--scans", scans)
    assert status == 0 and metrics["sensitivity"] == SENSITIVITY, error


def test_native_predictions_against_a_truth_of_another_program(evaluate, write):
    """z is the number in the volume's name, pixels count inclusively."""
    lesions = {"s_005-016": LESIONS["a"], "s_020-031": []}
    truth = write("truth.csv", table_text(lesions, None))
    shifts = {"a": ("s_005-016", 5), "b": ("s_020-031", 20)}
    native = {
        name: [
            [x1, y1, z1 + z, x2 - 1, y2 - 1, z2 + z, score]
            for (x1, y1, z1, x2, y2, z2), score in zip(BOXES[key], SCORES[key], strict=True)
        ]
        for key, (name, z) in shifts.items()
    }
    words = [
        "--protocol",
        "lens3d",
        "--ground-truth",
        truth,
        "--predictions",
        write("found.json", native),
        *AT_FPS,
    ]
    status, metrics, error = evaluate(*words)
    assert status == 0 and metrics["sensitivity"] == SENSITIVITY, error
    world = write("truth.json", {"validation": monai_entries(LESIONS)})
    status, _, error = evaluate(*words[:3], world, *words[4:])
    assert status == 2 and "found.json: is in voxels, and the truth in mm" in error


def test_3d_boxes_lie_on_their_slices_for_p3d(evaluate, write, tmp_path):
    marks = {"a": {"3": [[11, 11, 20, 20, 3, 3]], "8": [[41, 41, 50, 52, 8, 8]]}, "b": {}}
    words = ["--protocol", "p3d", "--ground-truth", write("truth.json", marks), "--fps", "0.5", "2"]
    status, metrics, error = evaluate(*words, "--predictions", write_nndetection(tmp_path / "found"))
    assert status == 0 and metrics["sensitivity"][0] == 0.5 and metrics["num_detections"] == 4, error


@pytest.mark.parametrize("frame", ["voxels", "world"])
def test_froc_of_plain_arrays(write, frame):
    truth = read_boxes(write("truth.csv", table_text(LESIONS, None, frame == "world"))).arrays("lens3d", frame)
    found = read_boxes(write("found.csv", table_text(BOXES, SCORES, frame == "world"))).arrays("lens3d", frame)
    assert froc(truth, found, fps=(0.5, 1)).metrics["sensitivity"] == SENSITIVITY
    exact = froc(truth, found, metric="IOGT", threshold=0.599, fps=(1,)).metrics
    over = froc(truth, found, metric="IOGT", threshold=0.601, fps=(1,)).metrics
    assert (exact["sensitivity"], over["sensitivity"]) == ([1.0], [0.5])  # 8 x 9 x 2 of 10 x 12 x 2 voxels: 0.6


def test_luna16_takes_the_centres(write):
    found = read_boxes(write("found.csv", table_text(BOXES, SCORES, world=True))).arrays("luna16")
    # x: -30 - 0.5 * 14.5, y: 20 + 0.75 * 14.5, z: -100 + 2 * 3.5
    np.testing.assert_allclose(found["a"][0], [-37.25, 30.875, -93.0, 0.9])


@pytest.mark.parametrize(
    ("protocol", "scores", "world", "message"),
    [
        (
            "luna16",
            SCORES,
            False,
            "holds boxes in voxels alone: name the folder of the scans by --scans",
        ),
        (
            "lens3d",
            SCORES,
            True,
            "holds boxes in millimetres alone: name the folder of the scans by --scans",
        ),
        ("p3d", None, False, "holds 3D boxes, and the truth of p3d are boxes on single slices"),
    ],
)
def test_what_a_protocol_cannot_take(write, protocol, scores, world, message):
    with pytest.raises(DataError, match=f"found.csv: {message}"):
        read_boxes(write("found.csv", table_text(BOXES, scores, world))).arrays(protocol)


@pytest.mark.parametrize("wanted", [("p3", "voxels"), ("lens3d", "mm")])
def test_arrays_of_an_unknown_kind(write, wanted):
    with pytest.raises(ValueError, match="belongs here"):
        read_boxes(write("found.csv", table_text(BOXES, SCORES))).arrays(*wanted)


def test_3d_boxes_keep_their_scores_wherever_they_lie(evaluate, write):
    """Two false positives beyond the marked slice, and a hit between two slices: as in the protocol's own layout.

    The volume's name ends in a date, which is no range of slices.
    """
    truth = write("truth.json", {"CT_2021-03": {"10": [[1, 1, 10, 10, 10, 10]]}, "b": {}})
    boxes = [[0, 0, 20, 5, 5, 22, 0.9], [0, 0, 30, 5, 5, 31, 0.8], [0, 0, 10.2, 10, 10, 10.4, 0.5]]
    table = [["volume", *VOXEL_COLUMNS, "score"], *(["CT_2021-03", *map(str, box)] for box in boxes)]
    native = {"CT_2021-03": [[1, 1, z1, x, y, z2, score] for _, _, z1, x, y, z2, score in boxes]}
    words = ["--protocol", "p3d", "--ground-truth", truth, "--fps", "0.5", "1", "--predictions"]
    files = [write("found.csv", "\n".join(map(",".join, table))), write("found.json", native)]
    found = [evaluate(*words, file) for file in files]
    for status, metrics, error in found:
        assert status == 0 and metrics["num_detections"] == 3 and metrics["ap"] == pytest.approx(1 / 3), error
    assert found[0][1]["sensitivity"] == found[1][1]["sensitivity"]


def test_a_table_names_each_volume(write):
    text = table_text(BOXES, SCORES)
    line = text.splitlines()[1]
    with pytest.raises(DataError, match="line 6: no volume's name"):
        read_boxes(write("found.csv", f"{text},{line.partition(',')[2]}\n"))


def test_a_foreign_truth_is_checked_as_others_are(evaluate, write):
    text = table_text(LESIONS, None)
    twice = write("truth.csv", text + text.splitlines()[1] + "\n")
    found = write("p.csv", table_text(BOXES, SCORES))
    status, _, error = evaluate("--protocol", "lens3d", "--ground-truth", twice, "--predictions", found)
    assert status == 0 and "1 lesions appear twice" in error


@pytest.mark.parametrize("protocol", ["lens3d", "luna16"])
def test_foreign_detections_are_checked_as_others_are(evaluate, write, protocol):
    text = table_text(BOXES, SCORES, world=True)
    found = write("found.csv", text + text.splitlines()[1] + "\n")
    truth = ["--ground-truth", write("truth.csv", table_text(LESIONS, None, world=True))]
    if protocol == "luna16":
        nodules = "seriesuid,coordX,coordY,coordZ,diameter_mm\na,-37.25,30.875,-93,10\n"
        truth = ["--ground-truth", write("nodules.csv", nodules), "--seriesuids", write("series.csv", "a\nb\n")]
    status, _, error = evaluate("--protocol", protocol, *truth, "--predictions", found)
    assert status == 0 and "1 detections appear twice" in error, error


def test_a_rate_given_twice_counts_once(evaluate, write):
    files = [write("truth.csv", table_text(LESIONS, None)), write("found.csv", table_text(BOXES, SCORES))]
    words = [
        "--protocol",
        "lens3d",
        "--ground-truth",
        files[0],
        "--predictions",
        files[1],
        "--fps",
        "1",
        "1",
        "0.5",
    ]
    status, metrics, error = evaluate(*words)
    assert (
        status == 0 and metrics["fps"] == [0.5, 1.0] and metrics["average_sensitivity"] == np.mean(SENSITIVITY)
    ), error


def test_scores_are_needed(evaluate, write):
    files = [write(name, table_text(LESIONS, None)) for name in ("truth.csv", "found.csv")]
    status, _, error = evaluate("--protocol", "lens3d", "--ground-truth", files[0], "--predictions", files[1])
    assert status == 2 and "found.csv: holds boxes without scores" in error


def test_formats_are_found_by_content_or_name(write, tmp_path, golden):
    assert sorted(name for name, _ in BOX_READERS) == ["coco", "monai", "monai_ras", "nndetection", "table"]
    assert find_reader(golden / "lens3d/predictions.json") is None
    assert find_reader(golden / "luna16/predictions.csv") is None
    assert type(find_reader(write_nndetection(tmp_path / "found"))).__name__ == "nndetection"
    with pytest.raises(DataError, match="no format 'nndet'; did you mean nndetection"):
        read_boxes(tmp_path / "found", "nndet")
    with pytest.raises(DataError, match="the folder holds no detections.csv"):
        read_boxes(tmp_path / "found", "table")
    (tmp_path / "found/detections.csv").write_text(table_text(BOXES, SCORES))
    with pytest.raises(DataError, match="files of several formats: choose one by --format"):
        read_boxes(tmp_path / "found")


def test_a_scan_that_is_not_there(scans):
    assert scan_geometry(scans, "a").size == SIZE
    with pytest.raises(DataError, match="no scan c"):
        scan_geometry(scans, "c")


@pytest.mark.parametrize("name", ["../a", "..", "/a", "b/../a", ""])
def test_a_name_leads_to_no_scan_elsewhere(scans, name):
    with pytest.raises(DataError, match="is not the name of a scan in this folder"):
        scan_geometry(scans, name)


def test_a_scan_may_be_named_with_its_ending(scans):
    (scan,) = scans.glob("a.*")
    assert find_scan(scans, "a") == find_scan(scans, scan.name) == scan


@pytest.mark.parametrize(("shift", "fails"), [(0.0, False), (0.2, False), (20.0, True)])
def test_voxels_and_millimetres_have_to_agree(scans, write, shift, fails):
    """As they do not where the millimetres are not LPS."""
    lines = [",".join(["volume", *VOXEL_COLUMNS, *WORLD_COLUMNS])]
    for box, world in zip(BOXES["a"], GEOMETRY.boxes3d_to_world(BOXES["a"]) + shift, strict=True):
        lines.append(",".join(map(str, ["a", *box, *world])))
    boxes = read_boxes(write("both.csv", "\n".join(lines)))
    with pytest.raises(DataError, match="both.csv: volume a: box 0: its voxels") if fails else nullcontext():
        boxes.locate(partial(scan_geometry, scans))


ODD = ["x", "", None, True, -1, 7.5, float("nan"), float("inf"), 10**400, [], {}, [1], [[1]], {"a": 1}]


def places(content, path=()):
    """Paths to everything in JSON."""
    inner = (
        content.items() if isinstance(content, dict) else enumerate(content if isinstance(content, list) else [])
    )
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def with_value(content, path, value):
    if not path:
        return value
    content = copy.copy(content)
    content[path[0]] = with_value(content[path[0]], path[1:], value)
    return content


@pytest.mark.parametrize(
    "file", ["coco_truth.json", "coco_results.json", "monai_truth.json", "monai_results.json"]
)
def test_whatever_stands_in_a_file_is_read_or_refused_in_one_line(golden, tmp_path, file):
    name, images = file.partition("_")[0], golden / "foreign/coco_truth.json"
    content = json.loads((golden / "foreign" / file).read_text())
    refused = 0
    for path in places(content):
        for value in ODD:
            (tmp_path / file).write_text(json.dumps(with_value(content, path, value)))
            try:
                read_boxes(tmp_path / file, name, images=images)
            except DataError as error:
                refused += 1
                assert str(error).startswith(str(tmp_path / file)) and "\n" not in str(error)
    assert refused > 100


def test_whatever_stands_in_nndetection_s_pickle(golden, tmp_path):
    content = load_pickle((golden / "foreign/nndetection/a_boxes.pkl").read_bytes(), "a_boxes.pkl")
    for key in [
        "pred_boxes",
        "pred_scores",
        "restore",
        "original_size_of_raw_data",
        "itk_origin",
        "itk_direction",
    ]:
        for value in [*ODD, np.zeros(3), np.zeros((2, 6)), np.array(["x"])]:
            (tmp_path / "a_boxes.pkl").write_bytes(pickle.dumps(content | {key: value}))
            try:
                read_boxes(tmp_path)
            except DataError as error:
                assert "a_boxes.pkl" in str(error) and "\n" not in str(error)


def test_boxes_narrower_than_a_pixel_are_as_wide_as_they_are(evaluate, write, caplog):
    """8 of its 10 slices are the lesion's: 0.8 of the box, however wide it is."""
    lesions, boxes = {"a": [[10, 10, 0, 10.5, 20, 7]]}, {"a": [[10, 10, 0, 10.5, 20, 9], [5, 5, 0, 5, 9, 2]]}
    truth = write("truth.csv", table_text(lesions, None))
    found = write("found.csv", table_text(boxes, {"a": [0.9, 0.8]}))
    for threshold, sensitivity in ((0.799, 1.0), (0.801, 0.0)):
        words = ["--protocol", "lens3d", "--ground-truth", truth, "--predictions", found, *AT_FPS]
        status, metrics, error = evaluate(*words, "--threshold", threshold)
        assert status == 0 and metrics["sensitivity"][1] == sensitivity, error
        assert "found.csv: 1 boxes without extent, which can neither hit nor be hit (volume a)" in error
        caplog.clear()
        arrays = [read_boxes(path).arrays("lens3d") for path in (truth, found)]
        assert froc(*arrays, fps=(0.5, 1), threshold=threshold).metrics["sensitivity"] == metrics["sensitivity"]
        assert "1 boxes without extent" in caplog.text
    marks = write("marks.json", {"a": {"3": [[11, 11, 20, 20, 3, 3]]}})
    status, metrics, error = evaluate("--protocol", "p3d", "--ground-truth", marks, "--predictions", found)
    assert status == 0 and metrics["num_detections"] == 2, error


def test_the_slices_of_a_detection_need_not_stand_together():
    boxes = np.array([[1, 1, 4, 9, 9, 4], [2, 2, 4, 9, 9, 4], [3, 3, 5, 9, 9, 5]], dtype=float)
    volume = VolumeBoxes("a", np.array([0.5, 0.6, 0.7]), voxels=boxes, detection=np.array([7, 2, 7]))
    tracks = ForeignBoxes("f", {"a": volume}).arrays("p3d")["a"]
    assert [rows[:, 1].tolist() for rows in tracks] == [[1, 3], [2]]
    assert ForeignBoxes("f", {"a": VolumeBoxes("a", np.zeros(0), boxes[:0])}).arrays("p3d")["a"] == []
