"""Devices of torch."""

import pytest
import torch
from detectron2.config import CfgNode

from lens_d2.io.device import fall_back_to_cpu


@pytest.mark.parametrize(("device", "is_there", "found"), [("cuda", False, "cpu"), ("cuda:1", True, "cuda:1")])
def test_the_cpu_takes_the_place_of_a_gpu_that_is_not_there(device, is_there, found, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    cfg = CfgNode({"MODEL": CfgNode({"DEVICE": device})})
    fall_back_to_cpu(cfg)
    assert cfg.MODEL.DEVICE == found
    assert ("running on the CPU" in caplog.text) == (not is_there)
