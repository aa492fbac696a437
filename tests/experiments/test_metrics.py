"""The metric study from files to its results."""

import json

import pytest

from experiments.__main__ import main

A, B = "000001_01_01_001-020", "000002_01_01_001-020"


def test_study(tmp_path, capsys):
    def write(name, content):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    boxes = {A: [[10, 10, 29, 29, 3, 6], [60, 60, 89, 89, 8, 8]], B: [[30, 30, 49, 49, 2, 4]]}
    marks = {A: {"4": [[10, 10, 29, 29, 4, 4]], "8": [[60, 60, 89, 89, 8, 8]]}, B: {"3": [[30, 30, 49, 49, 3, 3]]}}
    key_marks = {A: {"4": marks[A]["4"]}, "elsewhere_001-002": {"0": [[1, 1, 2, 2, 0, 0]]}}
    good = {A: [[[z, [10, 10, 29, 29, 0.9]] for z in (3, 4, 5, 6)], [[8, [60, 60, 89, 89, 0.8]]]], "elsewhere": []}
    poor = {A: [[[4, [12, 12, 33, 33, 0.3]]]], B: [[[z, [300, 30, 320, 49, 0.7]] for z in (1, 2)]]}
    words = ["--boxes-3d", write("boxes.json", boxes), "--marks", write("marks.json", marks)]
    words += ["--key-marks", write("key.json", key_marks), "--output", tmp_path / "out"]
    words += ["--predictions", write("good.json", good), write("poor.json", poor)]
    assert main(["metrics", *map(str, words)]) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["recalls"]["good"]["3D IoU"] == [pytest.approx(2 / 3)] * 8 == metrics["recalls"]["good"]["P3D"]
    assert metrics["recalls"]["good"]["incomplete RECIST"] == [1.0] * 8
    assert metrics["iou_3d"]["good"] == {"lesions": 2, "quartiles": [1, 1, 1]}
    assert set(metrics["pearson"]) == {"incomplete RECIST", "P3D", "IoBB"}
    for name in ("concordance.png", "iou_3d.png"):
        assert (tmp_path / "out" / name).stat().st_size > 10_000
    words[1] = tmp_path / "absent.pkl"
    assert main(["metrics", *map(str, words)]) == 2
    assert "absent.pkl: cannot be read" in capsys.readouterr().err
    assert main(["metrics", *map(str, words), "--names", "a", "a"]) == 2
    assert capsys.readouterr().err == "--names: a a; give each prediction file a name of its own\n"
