"""The Detectron2 evaluators: the published numbers, in the files' coordinates, from the outputs of all ranks."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from lens_d2.evaluation.evaluators import FROC3DEvaluator, P3DFROCEvaluator
from lens_d2.evaluation.files import slice_range
from lens_d2.evaluation.frames import FileFrame, slice_boxes
from lens_d2.evaluation.slice_ap import SliceAPEvaluator
from lens_d2.io.pickles import read_pickle
from lens_d2.structures.detections import VolumeDetections


@pytest.fixture
def register():
    """register(records, evaluator_type, dataset): the name of a new dataset, gone after the test."""
    names = []

    def add(records, evaluator_type, dataset, **metadata):
        name = f"evaluated_{len(names)}"
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(
            thing_classes=["lesion"], expert="deeplesion", fully_labelled=True, evaluator_type=evaluator_type,
            truth_is_3d=evaluator_type != "p3d", dataset=dataset, **metadata,
        )  # fmt: skip
        names.append(name)
        return name

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def record(name, lesions, size=(512, 512)):
    first, last = slice_range(name)
    return {
        "volume": name, "image_id": name, "first_slice": first, "num_slices": last - first + 1, "width": size[0],
        "height": size[1], "lesions": lesions,
    }  # fmt: skip


def lesion(boxes=(), box3d=None, key_slice=None, status="annotation"):
    return {"boxes": [list(b) for b in boxes], "box3d": box3d, "key_slice": key_slice, "status": status}


def lens_records(truth):
    """As the reader of LENS's set makes them: x and y as they are, slices from the first one."""
    records = []
    for name, rows in truth.items():
        first = slice_range(name)[0]
        boxes = np.array(rows, dtype=float).reshape(-1, 6) + [0, 0, -first, 1, 1, -first]
        records.append(record(name, [lesion(box3d=box) for box in boxes.tolist()]))
    return records


def lens_outputs(records, found):
    outputs = []
    for entry in records:
        rows = np.array(found.get(entry["volume"], []), dtype=float).reshape(-1, 7)
        first = entry["first_slice"]
        boxes = rows[:, :6] + [0, 0, -first, 1, 1, -first]
        both = {"fused": VolumeDetections(boxes, rows[:, 6]), "luna": VolumeDetections(boxes[::2], rows[::2, 6])}
        outputs.append({"volume": entry["volume"], "detections": both})
    return outputs


def harvester_records(truth):
    """As the reader of Lesion-Harvester's sets makes them: x and y less 1."""
    records = []
    for name, slices in truth.items():
        marks = [(int(z), np.array(row[:4]) - [1, 1, 0, 0]) for z, rows in slices.items() for row in rows]
        lesions = [lesion([[z, *box.tolist()]], key_slice=z) for z, box in marks]
        records.append(record(name.removesuffix(".annot"), lesions))
    return records


def harvester_outputs(records, found):
    outputs = []
    for entry in records:
        tracklets = found.get(entry["volume"], [])
        rows = [(z, x1 - 1, y1 - 1, x2, y2, s) for t in tracklets for z, (x1, y1, x2, y2, s) in t]
        rows = np.array(rows, dtype=float).reshape(-1, 6)
        owner = np.repeat(np.arange(len(tracklets)), [len(t) for t in tracklets])
        scores = np.array([max(box[4] for _, box in t) for t in tracklets])
        detections = VolumeDetections(np.zeros((len(tracklets), 6)), scores, rows, owner)
        outputs.append({"volume": entry["volume"], "detections": {"fused": detections}})
    return outputs


CASES = {
    "lens3d": (FROC3DEvaluator, "deeplesion_1k_val", lens_records, lens_outputs),
    "p3d": (P3DFROCEvaluator, "deeplesion_vh_test", harvester_records, harvester_outputs),
}


def check(protocol, folder, truth, truth_file, register, tmp_path, evaluate, *options):
    """The evaluator gives the published numbers, and its own files give them again."""
    kind, dataset, to_records, to_outputs = CASES[protocol]
    records = to_records(truth)
    outputs = to_outputs(records, json.loads((folder / "predictions.json").read_text()))
    out = tmp_path / "inference"
    evaluator = kind(register(records, protocol, dataset), out)
    for entry, output in zip(records, outputs, strict=True):
        evaluator.process([entry], [output])
    results = evaluator.evaluate()[protocol]
    expected = json.loads((folder / "expected.json").read_text())["cases"][0]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["sensitivity"] == pytest.approx(expected["sensitivity"], abs=1e-6)
    assert results["average_sensitivity"] == metrics["average_sensitivity"]
    assert all(isinstance(value, float) for value in results.values())
    assert results["sensitivity@0.125"] == metrics["sensitivity"][0]
    assert (out / "froc.png").stat().st_size > 10_000
    words = ["--protocol", protocol, "--predictions", out / "predictions.json", "--bootstrap", "1000", *options]
    for file in (truth_file, out / "ground_truth.json"):
        again = evaluate(*words, "--ground-truth", file)[1]
        for key, value in again.items():
            if isinstance(value, list):
                assert np.allclose(metrics[key], value, atol=1e-6), key
            else:
                assert metrics[key] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-6)), key
    return metrics, results


@pytest.mark.parametrize("protocol", ["lens3d", "p3d"])
def test_golden_case(protocol, golden, register, tmp_path, evaluate):
    file = golden / protocol / "ground_truth.json"
    truth = json.loads(file.read_text())
    metrics, results = check(protocol, golden / protocol, truth, file, register, tmp_path, evaluate)
    if protocol == "lens3d":
        assert metrics["experts"]["luna"]["average_sensitivity"] == results["luna/average_sensitivity"]
        assert results["luna/average_sensitivity"] < results["average_sensitivity"]
        found = json.loads((tmp_path / "inference/predictions_luna.json").read_text())
        whole = json.loads((tmp_path / "inference/predictions.json").read_text())
        assert all(found[name] == rows[::2] for name, rows in whole.items())
    else:
        assert results["ap"] == metrics["ap"]


@pytest.mark.parametrize("protocol", ["lens3d", "p3d"])
def test_released_annotations(protocol, shared_dir, register, tmp_path, evaluate):
    """What is written can be evaluated with the released pickle, z as the number of the PNG and all."""
    file, options = shared_dir / "annotations/deeplesion/Revised-Train100.pkl", []
    if protocol == "lens3d":
        file, options = file.with_name("DeepLesion_manual_1K_test_release.pkl"), ["--split", "val"]
    truth = read_pickle(file)
    truth = truth["val"] if options else truth
    check(protocol, shared_dir / "golden" / protocol, truth, file, register, tmp_path, evaluate, *options)


@pytest.mark.parametrize("protocol", ["lens3d", "p3d"])
def test_two_ranks(protocol, golden, register, monkeypatch):
    """Each rank has half of the sub-volumes, the second one none of the experts'."""
    kind, dataset, to_records, to_outputs = CASES[protocol]
    records = to_records(json.loads((golden / protocol / "ground_truth.json").read_text()))
    outputs = to_outputs(records, json.loads((golden / protocol / "predictions.json").read_text()))
    name = register(records, protocol, dataset)
    whole, first, second = (kind(name, draws=0) for _ in range(3))
    whole.process(records, outputs)
    first.process(records[::2], outputs[::2])
    second.process(records[1::2], outputs[1::2])
    expected = whole.evaluate()
    monkeypatch.setattr(comm, "gather", lambda data, dst=0: [data, second._entries])
    assert first.evaluate() == expected
    monkeypatch.setattr(comm, "gather", lambda data, dst=0: [])
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert second.evaluate() is None


A, B = "000001_01_01_011-030", "000002_01_01_001-020"


@pytest.fixture
def scene():
    """Two sub-volumes; one detection right, one wrong, with boxes on their slices."""
    boxes = [[z, 100.0, 120.0, 140.0, 160.0] for z in (4, 5, 6)]
    records = [
        record(A, [lesion(boxes, [100.0, 120.0, 4, 140.0, 160.0, 6], 5), lesion(status="mined")]),
        record(B, []),
    ]
    slices = np.array(
        [[z, 100, 120, 140, 160, 0.9 - 0.1 * abs(z - 5)] for z in (4, 5, 6)] + [[9, 5, 5, 25, 25, 0.5]]
    )
    whole = np.array([[100.0, 120, 4, 140, 160, 6], [5, 5, 9, 25, 25, 9]])
    found = VolumeDetections(whole, np.array([0.9, 0.5]), slices, np.array([0, 0, 0, 1]))
    experts = {"fused": found, "lits": VolumeDetections()}
    return records, [
        {"volume": A, "detections": experts},
        {"volume": B, "detections": {"fused": VolumeDetections()}},
    ]


def test_average_precision_of_slices(scene, register, tmp_path):
    records, outputs = scene
    evaluator = SliceAPEvaluator(register(records, "lens3d", "any"), tmp_path)
    evaluator.process(records, outputs)
    results = evaluator.evaluate()["bbox"]
    assert results["AP50"] == pytest.approx(100.0) and "lits/AP" not in results
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


def test_nothing_to_find_or_found(register):
    empty = [record(A, []), record(B, [])]
    name = register(empty, "lens3d", "any")
    nothing = [{"volume": e["volume"], "detections": {"fused": VolumeDetections()}} for e in empty]
    for kind in (FROC3DEvaluator, P3DFROCEvaluator, SliceAPEvaluator):
        evaluator = kind(name)
        assert evaluator.evaluate() == {}
        evaluator.process(empty, nothing)
        for numbers in evaluator.evaluate().values():
            assert set(numbers.values()) == {0.0}


def test_new_scores_of_detections_are_those_of_their_slices(scene):
    found = scene[1][0]["detections"]["fused"]
    found.scores = np.array([0.45, 0.5])
    rows, owner = slice_boxes(found)
    assert rows[:, 5] == pytest.approx([0.4, 0.45, 0.4, 0.5]) and owner.tolist() == [0, 0, 0, 1]
    bare = VolumeDetections(found.boxes, found.scores)
    rows, owner = slice_boxes(bare)
    assert rows[:, 0].tolist() == [4, 5, 6, 9] and rows[:, 5].tolist() == [0.45] * 3 + [0.5]


def test_file_frames():
    boxes = np.array([[10.0, 20, 3, 30, 40, 5], [7, 7, 0, 7.5, 7.5, 0]])
    assert FileFrame().to_file(boxes, 31).tolist() == [[10, 20, 34, 29, 39, 36], [7, 7, 31, 7, 7, 31]]
    assert FileFrame(1, False).to_file(boxes[:1, [0, 1, 3, 4]], 31).tolist() == [[11, 21, 30, 40]]
