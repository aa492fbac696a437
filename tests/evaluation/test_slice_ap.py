"""Average precision of boxes on slices: COCO's, told in one line, on the slices that are annotated."""

import json

import pytest
from helpers.evaluated import A

from lens_d2.evaluation.slice_ap import METRICS, SliceAPEvaluator, slice_average_precision


def test_average_precision_of_slices(scene, register, tmp_path):
    records, outputs = scene
    evaluator = SliceAPEvaluator(register(records, "lens3d", "any"), tmp_path)
    evaluator.process(records, outputs)
    results = evaluator.evaluate()["bbox"]
    assert results["AP50"] == pytest.approx(100.0) and results["lits/AP"] == 0
    truth = json.loads((tmp_path / "coco_truth.json").read_text())
    assert len(truth["images"]) == 40 and [a["bbox"] for a in truth["annotations"]] == [[100, 120, 40, 40]] * 3
    assert truth["images"][0]["file_name"] == f"{A}/011.png"


def test_average_precision_is_told_in_one_line(scene, register, caplog, capsys):
    records, outputs = scene
    outputs = [{**o, "detections": {**o["detections"], "luna": o["detections"]["fused"]}} for o in outputs]
    evaluator = SliceAPEvaluator(register(records, "lens3d", "any"))
    evaluator.process(records, outputs)
    with caplog.at_level("INFO"):
        evaluator.evaluate()
    (line,) = caplog.messages
    assert line.startswith(f"{evaluator.dataset_name}, boxes on slices: AP ") and line.endswith(", AP50 100.00")
    assert capsys.readouterr().out == ""


def test_average_precision_is_hurt_by_boxes_on_other_slices_of_a_3d_truth_alone(scene, register):
    records, outputs = scene
    found = outputs[0]["detections"]["fused"]
    found.scores[1] = found.slice_boxes[3, 5] = 0.95  # the wrong one first
    values = {}
    for kind in ("lens3d", "p3d"):
        evaluator = SliceAPEvaluator(register(records, kind, "any"))
        evaluator.process(records, outputs)
        values[kind] = evaluator.evaluate()["bbox"]["AP50"]
    assert values["lens3d"] < 80 and values["p3d"] == pytest.approx(100.0)


def test_nothing_found_is_a_precision_of_0_where_there_is_something():
    truth = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    assert slice_average_precision(truth, []) == {}
    truth["images"] = [{"id": 1, "width": 64, "height": 64}]
    truth["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0.0, 0, 50, 50], "area": 2500.0, "iscrowd": 0}
    ]
    assert slice_average_precision(truth, []) == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, "APm": 0.0}
    assert METRICS[:3] == ("AP", "AP50", "AP75")
