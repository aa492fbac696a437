"""The measurements of a GPU, tried out on the CPU with a narrow network."""

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.gpu import GPU_MEASUREMENTS

NARROW = ["MODEL.DENSENET.GROWTH_RATE", "4", "MODEL.DENSENET.BLOCK_CONFIG", "(2, 2, 2)"]
NARROW += ["MODEL.DENSENET.OUT_CHANNELS", "16", "MODEL.AFP.CONV_DIM", "8", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"]


def measure(capsys, *names: str) -> list[dict]:
    words = ["gpu", "--device", "cpu", "--size", "64", "--slices", "4", "--repeats", "1", "--only", *names]
    assert main([*words, "--opts", *NARROW]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_names(capsys):
    assert main(["gpu", "--list"]) == 0
    names = ["gpu-inference", "gpu-compiled", "gpu-training-step", "gpu-equality", "gpu-waiting"]
    assert capsys.readouterr().out.split() == names == list(GPU_MEASUREMENTS)


def test_without_a_gpu_or_of_another_suite_it_is_a_line(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["gpu"]) == 2
    assert "--device: cuda, but torch finds no GPU" in capsys.readouterr().err
    assert main(["--only", "gpu-waiting"]) == 2
    assert "--only: gpu-waiting is no measurement of a CPU" in capsys.readouterr().err


def test_a_slice(capsys):
    (line,) = measure(capsys, "gpu-inference")
    details = line["details"]
    assert set(details["ms_a_slice"]) == set(details["share_of_matmul"]) == set(details["peak_mb"])
    assert line["ratio"] == pytest.approx(line["baseline_seconds"] / line["ours_seconds"])
    work = details["multiply_adds_g_a_slice"]
    assert work["alone"] > work["volume"] > 0  # neighbouring slices share images


def test_a_step_of_training(capsys):
    (line,) = measure(capsys, "gpu-training-step")
    details = line["details"]
    assert set(details["seconds"]) == {"forward", "backward", "optimizer"}
    assert sum(details["seconds"].values()) == pytest.approx(line["ours_seconds"], rel=0.5)
    assert details["loss"] > 0 and line["ratio"] > 0


def test_detections_and_waiting(capsys):
    equality, waiting = measure(capsys, "gpu-equality", "gpu-waiting")
    assert equality["ratio"] == 0 and equality["details"]["detections"] > 0
    assert waiting["details"]["batches"] == 1
    operators = waiting["details"]["operators"]
    assert waiting["ratio"] == sum(operators.values())
    assert operators["torchvision::nms"] == 3  # of all images and experts: proposals, detections, fusion
    assert operators["aten::nonzero"] == 0
