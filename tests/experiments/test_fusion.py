"""Fusion of experts after the fact: which detections stay, and the table."""

import json

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.fusion import pool, thin
from lens_d2.evaluation.sets import BoxDetections


def boxes(*rows) -> BoxDetections:
    """Volume, x of a box of 10 pixels and 3 slices, score."""
    table = np.array(rows, dtype=float)
    corner = np.column_stack([table[:, 1], np.zeros(len(table)), np.zeros(len(table))])
    return BoxDetections(table[:, 0].astype(int), np.column_stack([corner, corner + [9, 9, 2]]), table[:, 2])


def test_of_detections_that_overlap_the_best_stays():
    found = thin(boxes((0, 0, 0.5), (0, 2, 0.9), (0, 40, 0.1), (2, 0, 0.4), (2, 1, 0.3)))
    assert sorted(zip(found.volume.tolist(), found.scores.tolist(), strict=True)) == [(0, 0.1), (0, 0.9), (2, 0.4)]


def test_new_scores_decide():
    experts = {"a": boxes((0, 0, 0.5)), "b": boxes((0, 1, 0.6))}
    found = pool(experts, lambda name, scores: scores + (name == "a"))
    assert found.scores.tolist() == [1.5] and found.boxes[0, 0] == 0


def test_the_table(tmp_path, capsys):
    lesion, miss = [1, 1, 3, 9, 9, 5], [30, 30, 3, 39, 39, 5]
    (tmp_path / "ground_truth.json").write_text(json.dumps({"000001_01_01_001-009": [lesion]}))
    for name, score in (("", 0.9), ("_luna", 0.8), ("_deeplesion", 0.9)):
        content = {"000001_01_01_001-009": [[*lesion, score], [*miss, 0.3]]}
        (tmp_path / f"predictions{name}.json").write_text(json.dumps(content))
    assert main(["fusion", "--inference", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3 + 3 + 3 and all(line.endswith("1.000 |") for line in lines[2:])


def test_one_expert_is_refused(tmp_path, capsys):
    (tmp_path / "ground_truth.json").write_text(json.dumps({"000001_01_01_001-009": [[1, 1, 3, 9, 9, 5]]}))
    assert main(["fusion", "--inference", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: has not the predictions of several experts\n"
    with pytest.raises(SystemExit):
        main(["fusion"])
