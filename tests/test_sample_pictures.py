"""Samples as pictures: the central slice, and the overlays that training writes."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from helpers.blocks import EXPERTS, blocks_cfg, register_blocks
from helpers.sample_colors import has_color
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lens_d2.data.mapper import SliceMapper
from lens_d2.engine import LENSTrainer
from lens_d2.engine.overlays import OverlayHook
from lens_d2.visualization.samples import central_slice


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    register_blocks(folder)
    return folder


def test_the_central_slice_in_hu(folder):
    cfg = blocks_cfg(folder)
    record = DatasetCatalog.get("blocks_luna")[0]
    mapper = SliceMapper(cfg, is_train=False)
    hu = central_slice(mapper(record, 2), mapper.hu_window)
    volume = mapper.cache.open(record)
    expected = volume.read(volume.geometry.slices_to_cache([2.0]))[0]
    low, high = mapper.hu_window
    np.testing.assert_allclose(hu, expected.clip(low, high), atol=0.5)


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
