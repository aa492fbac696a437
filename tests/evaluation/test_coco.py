"""--coco: truth and predictions per slice that pycocotools takes."""

import contextlib
import io
import json

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

A = "000001_01_01_011-030"


@pytest.fixture
def export(evaluate, write, tmp_path):
    def run(protocol, truth, found):
        files = ("--ground-truth", write("t.json", truth), "--predictions", write("p.json", found), "--coco")
        assert evaluate("--protocol", protocol, *files)[0] == 0
        folder = tmp_path / "results"
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(folder / "coco_truth.json"))
            results = coco.loadRes(str(folder / "coco_predictions.json"))
        return coco, results

    return run


def test_lens3d_boxes_on_each_of_their_slices(export):
    coco, results = export("lens3d", {A: [[0, 0, 12, 9, 19, 13.4]]}, {A: [[0, 0, 12.6, 9, 19, 12.8, 0.7]]})
    assert len(coco.imgs) == 20 and coco.imgs[2]["file_name"] == "000001_01_01/012.png"
    marked = [(coco.imgs[a["image_id"]]["slice"], a["bbox"]) for a in coco.anns.values()]
    assert marked == [(1, [0, 0, 10, 20]), (2, [0, 0, 10, 20])]  # from 0, where the file's numbers begin at 11
    (one,) = results.anns.values()  # between two slices: on the nearest
    assert coco.imgs[one["image_id"]]["slice"] == 2 and one["score"] == 0.7


def test_p3d_boxes_start_at_pixel_1(export):
    truth, found = {A: {"3": [[1, 1, 10, 20, 3, 3]]}}, {A: [[[3, [1, 1, 10, 20, 0.9]], [4, [1, 1, 10, 20, 0.8]]]]}
    coco, results = export("p3d", truth, found)
    assert [a["bbox"] for a in coco.anns.values()] == [[0, 0, 10, 20]]
    assert [image["slice"] for image in coco.imgs.values() if image["annotated"]] == [3]
    assert coco.imgs[4]["file_name"] == "000001_01_01/014.png" and len(results.anns) == 2
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.params.imgIds = [i for i, image in coco.imgs.items() if image["annotated"]]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_3d_boxes_that_count_as_3d_box_pkl(evaluate, write, tmp_path):
    """Pixels from 1, slices from 0 in the sub-volume, and all slices are annotated."""
    files = ("--ground-truth", write("t.json", {A: [[1, 1, 10, 20, 3, 4]]}), "--box-order", "xyxyzz", "--coco")
    found = write("p.json", {A: [[1, 1, 3, 10, 20, 3, 0.9]]})
    assert evaluate("--protocol", "lens3d", *files, "--predictions", found)[0] == 0
    truth = json.loads((tmp_path / "results/coco_truth.json").read_text())
    assert [a["bbox"] for a in truth["annotations"]] == [[0, 0, 10, 20]] * 2
    assert all(image["annotated"] for image in truth["images"]) and truth["images"][3]["file_name"].endswith(
        "/014.png"
    )


def test_a_box_on_more_slices_than_a_volume_has_is_refused(evaluate, write):
    files = ("--ground-truth", write("t.json", {A: [[1, 1, 13, 10, 20, 14]]}), "--coco")
    found = write("p.json", {A: [[1, 1, 13, 10, 20, 1e30, 0.9]]})
    status, _, told = evaluate("--protocol", "lens3d", *files, "--predictions", found)
    assert status == 2 and "--coco: a box on slices 13 to 1e+30: no volume has as many" in told


def test_every_lesion_and_detection_of_the_golden_case(evaluate, golden, tmp_path):
    files = ("--ground-truth", golden / "p3d/ground_truth.json", "--predictions", golden / "p3d/predictions.json")
    evaluate("--protocol", "p3d", *files, "--coco")
    truth = json.loads((tmp_path / "results/coco_truth.json").read_text())
    assert len(truth["annotations"]) == 73
    assert len({(image["volume"], image["slice"]) for image in truth["images"]}) == len(truth["images"])


def test_points_have_no_boxes(evaluate):
    words = ("--ground-truth", "a", "--predictions", "b", "--seriesuids", "c", "--coco")
    assert evaluate("--protocol", "luna16", *words)[0] == 2
