"""Devices of torch, and the GPUs that a job was promised."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from lens_d2.config import load_config
from lens_d2.io.device import GPU_COUNTS, GPU_LISTS, check_device, fall_back_to_cpu
from lens_d2.io.errors import DataError


@pytest.mark.parametrize(("device", "is_there", "found"), [("cuda", False, "cpu"), ("cuda:1", True, "cuda:1")])
def test_the_cpu_takes_the_place_of_a_gpu_that_is_not_there(device, is_there, found, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    cfg = CfgNode({"MODEL": CfgNode({"DEVICE": device})})
    fall_back_to_cpu(cfg)
    assert cfg.MODEL.DEVICE == found
    assert ("running on the CPU" in caplog.text) == (not is_there)


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7"}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": ""}, False),
        ({"SLURM_GPUS_ON_NODE": "2"}, False),
        ({"TORCHELASTIC_RUN_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1"}, True),
        ({"TORCHELASTIC_RUN_ID": "7", "CUDA_VISIBLE_DEVICES": "-1"}, False),
    ],
)
def test_a_job_with_gpus_does_not_go_on_without(variables, refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in (*GPU_LISTS, *GPU_COUNTS, "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    cfg = load_config("", ["MODEL.DEVICE", "cuda"])
    if refused:
        with pytest.raises(DataError, match="has started a job with GPUs"):
            check_device(cfg)
    else:
        check_device(cfg)
