"""Weights of the zoo are made from the end of a training to the package's folder by one command."""

import json

import pytest
import torch

from experiments import runs, zoo
from experiments.__main__ import main
from lens_d2.evaluation.operating_points import OperatingPoints
from lens_d2.io.checkpoint import load_weights


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Calls of the project's commands; training leaves what train_net.py would."""
    calls = []

    def call(*words):
        calls.append([str(word) for word in words])
        if words[0] != "train_net.py":
            return
        folder = tmp_path / "out/lens_multi"
        found = folder / "inference" / zoo.VALIDATION
        found.mkdir(parents=True)
        torch.save({"model": {"backbone.a": torch.ones(2), "head.b": torch.ones(2)}}, folder / "model_final.pth")
        (found / "ground_truth.json").write_text(json.dumps({"000001_01_01_001-009": [[1, 1, 3, 9, 9, 5]]}))
        hit, miss = [1, 1, 3, 9, 9, 5, 0.9], [20, 20, 3, 29, 29, 5, 0.4]
        for name in ("", "_luna"):
            (found / f"predictions{name}.json").write_text(json.dumps({"000001_01_01_001-009": [hit, miss]}))

    monkeypatch.setattr(runs, "call", call)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return calls


def test_a_detector_with_its_operating_points(commands, tmp_path):
    assert main(["zoo", "phantom/lens_multi", "--output", str(tmp_path / "out"), "--size", "tiny"]) == 0
    assert [words[0] for words in commands] == [
        "datasets/prepare_phantom.py", "datasets/prepare_datasets.py", "train_net.py",
    ]  # fmt: skip
    packed = load_weights(str(tmp_path / "out/weights/phantom/lens_multi.pth"))
    assert set(packed["model"]) == {"backbone.a", "head.b"} and set(packed["operating_points"]) == {
        "fused",
        "luna",
    }
    points = OperatingPoints.from_dict(packed["operating_points"]["fused"])
    assert points.thresholds == {0.5: 0.9, 1.0: 0.4, 4.0: 0.4} and "tiny, seed 100" in points.source


def test_a_backbone_alone(commands, tmp_path):
    cohort = tmp_path / "out/large_7/phantom/phantom.json"
    cohort.parent.mkdir(parents=True)
    cohort.write_text("{}")
    assert main(["zoo", "phantom/backbone", "--output", str(tmp_path / "out"), "--cohort-seed", "7"]) == 0
    assert [words[0] for words in commands] == ["train_net.py"]
    packed = load_weights(str(tmp_path / "out/weights/phantom/backbone.pth"))
    assert set(packed) == {"model"} and set(packed["model"]) == {"backbone.a"}
