"""The released scripts' own results, on made-up and on real annotations, to 1e-6."""

import json

import pytest

from benchmarks.protocols import BASELINES
from lens_d2.evaluation import readers

ANNOTATIONS = {"lens3d": "DeepLesion_manual_1K_test_release.pkl", "p3d": "Revised-Train100.pkl"}


def inputs(folder, protocol, truth=None):
    if protocol == "luna16":
        words = ["--ground-truth", folder / "annotations.csv", "--predictions", folder / "predictions.csv"]
        return [
            *words,
            "--excluded",
            folder / "annotations_excluded.csv",
            "--seriesuids",
            folder / "seriesuids.csv",
        ]
    return ["--ground-truth", truth or folder / "ground_truth.json", "--predictions", folder / "predictions.json"]


def check(evaluate, folder, protocol, truth=None, split=None):
    cases = json.loads((folder / "expected.json").read_text())["cases"]
    for case in cases:
        options = [word for key in ("metric", "threshold") if key in case for word in (f"--{key}", case[key])]
        options += ["--split", split] if split else []
        status, metrics, error = evaluate("--protocol", protocol, *inputs(folder, protocol, truth), *options)
        assert status == 0, error
        for key, value in case.items():
            assert metrics[key] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-6)), key
    assert cases


@pytest.mark.parametrize("protocol", ["lens3d", "p3d", "luna16"])
def test_made_up_truth(evaluate, golden, protocol):
    check(evaluate, golden / protocol, protocol)


@pytest.mark.parametrize("protocol", ["lens3d", "p3d", "luna16"])
def test_real_truth(evaluate, shared_dir, protocol):
    truth = shared_dir / "annotations/deeplesion" / ANNOTATIONS[protocol] if protocol in ANNOTATIONS else None
    check(evaluate, shared_dir / "golden" / protocol, protocol, truth, "val" if protocol == "lens3d" else None)


@pytest.mark.parametrize("protocol", ["lens3d", "p3d", "luna16"])
def test_the_baseline_loops_give_the_same(golden, protocol):
    """The loops that the speed is measured against are the protocols."""
    folder = golden / protocol
    if protocol == "luna16":
        files = ("annotations.csv", "seriesuids.csv", "annotations_excluded.csv")
        truth = readers.read_nodules(*(folder / name for name in files))
        detections = readers.read_candidates(folder / "predictions.csv", truth)
    else:
        read = {
            "lens3d": (readers.read_lesion_boxes, readers.read_box_detections),
            "p3d": (readers.read_marks, readers.read_tracklets),
        }[protocol]
        truth = read[0](folder / "ground_truth.json")
        detections = read[1](folder / "predictions.json", truth)
    for case in json.loads((folder / "expected.json").read_text())["cases"]:
        if case.get("metric", "IOBB") != "IOBB":
            continue
        keys = {"threshold": case["threshold"]} if "threshold" in case else {}
        result = BASELINES[protocol](truth, detections, **keys)
        for key, value in result.items():
            assert case[key] == pytest.approx(value, abs=1e-6), key
