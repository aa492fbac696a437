"""The Detectron2 evaluators: the published numbers, in the files' coordinates, from the outputs of all ranks."""

import json

import numpy as np
import pytest
from detectron2.utils import comm
from helpers.evaluated import A, B, lesion, record

from lens_d2.evaluation.evaluators import FROC3DEvaluator, P3DFROCEvaluator, summaries
from lens_d2.evaluation.slice_ap import SliceAPEvaluator
from lens_d2.io.formats import slice_range
from lens_d2.io.pickles import read_pickle
from lens_d2.structures.detections import VolumeDetections


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


def test_summaries_are_those_of_the_models_own_output():
    one = {"p3d": {"ap": 0.5, "ap@0.5": 0.1, "luna/ap": 0.3}, "bbox": {"ap": 0.9}}
    assert summaries(one, "ap") == {"p3d": 0.5}
    assert summaries({"luna_val": one, "lits_val": {"lens3d": {"ap": 0.25}}}, "ap") == {
        "luna_val/p3d": 0.5,
        "lits_val/lens3d": 0.25,
    }
