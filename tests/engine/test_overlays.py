"""Overlays that training writes for TensorBoard."""

import cv2
import numpy as np
import pytest
import torch
from helpers.blocks import EXPERTS, blocks_cfg, register_blocks
from helpers.sample_colors import has_color
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lens_d2.engine import LENSTrainer
from lens_d2.engine.overlays import OverlayHook


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    register_blocks(folder)
    return folder


def test_training_writes_overlays_at_their_period_and_is_the_same_without(folder, tmp_path):
    weights, tags = {}, {}
    for period in (0, 2):
        out = tmp_path / str(period)
        cfg = blocks_cfg(folder, "VIS_PERIOD", period, "OUTPUT_DIR", str(out), "DATASETS.TEST", ())
        torch.manual_seed(0)
        trainer = LENSTrainer(cfg)
        assert any(isinstance(hook, OverlayHook) for hook in trainer._hooks) == bool(period)
        trainer.train()
        assert trainer.model.training
        events = EventAccumulator(str(out), size_guidance={"images": 0})
        events.Reload()
        weights[period], tags[period] = trainer.model.state_dict(), set(events.Tags()["images"])
    assert tags[0] == set() and tags[2] == {f"overlay/{expert}" for expert in EXPERTS}
    for tag in tags[2]:
        images = events.Images(tag)
        assert [image.step for image in images] == [1, 3]
        picture = cv2.imdecode(np.frombuffer(images[-1].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
        assert has_color(picture, "annotation")
    assert all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
