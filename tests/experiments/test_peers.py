"""Peers: every detector gets the same time, and a run that was stopped goes on."""

import json

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.blocks import blocks_cfg, register_blocks

from experiments import peers
from experiments.__main__ import main
from experiments.peers.retinanet import VolumeReader, WholeVolume
from lens_d2.inference.volume import num_interpolated_slices


class Line:
    """A peer with one weight."""

    def __init__(self):
        self.cfg = get_cfg()
        self.cfg.MODEL.DEVICE = "cpu"
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def batches(self, steps):
        while True:
            yield torch.ones(200, 1)

    def losses(self, batch):
        return {"loss": (self.model(batch) - 3).square().mean()}


def test_training_ends_with_the_budget_and_goes_on_with_a_larger_one(tmp_path):
    first = Line()
    steps = peers.train(first, 0.05, tmp_path)
    assert steps > 0 and first.optimizer.param_groups[0]["lr"] < 0.1
    again = Line()
    assert peers.train(again, 0.05, tmp_path) == steps  # nothing is left to do
    assert torch.equal(again.model.weight, first.model.weight)
    assert peers.train(Line(), 0.1, tmp_path) > steps


def test_the_first_volumes_are_a_dataset_of_their_own():
    DatasetCatalog.register("peers_all", lambda: [{"volume": str(i)} for i in range(5)])
    MetadataCatalog.get("peers_all").set(fully_labelled=True)
    assert peers.first_of("peers_all", 0) == "peers_all"
    name = peers.first_of("peers_all", 2)
    assert [record["volume"] for record in DatasetCatalog.get(name)] == ["0", "1"]
    assert MetadataCatalog.get(name).fully_labelled and peers.first_of("peers_all", 2) == name


def test_the_peers():
    assert list(peers.PEERS) == ["LENS", "Faster R-CNN", "RetinaNet 3D"]


@pytest.mark.parametrize("places", [[0], [2], [1, 2, 3]])
def test_boxes_of_the_3d_peer_lie_within_the_levels_and_come_back(tmp_path, places):
    (name, *_) = register_blocks(tmp_path)
    record, cfg = dict(DatasetCatalog.get(name)[0]), blocks_cfg(tmp_path)
    record["lesions"] = [{"box3d": None, "boxes": [[z, 4, 6, 12, 16] for z in places]}]
    reader = VolumeReader(cfg)
    volume = reader.cache.open(record)
    boxes = torch.tensor(reader.boxes(record, volume))
    levels = reader.image(volume, np.arange(num_interpolated_slices(volume, reader.slice_interval))).shape[3]
    room = 0.5 * abs(volume.geometry.slice_interval / reader.slice_interval - 1)  # a level is thinner or thicker
    assert -room <= boxes[0, 2] < boxes[0, 5] <= levels + room
    found = {"boxes": boxes, "labels_scores": torch.tensor([0.9])}
    slices = WholeVolume(cfg, lambda images, use_inferer: [found]).detect(volume)["fused"].slice_boxes
    np.testing.assert_allclose(slices, [[z, 4, 6, 12, 16, 0.9] for z in places], atol=1e-5)


def test_narrow_networks_of_equal_work_are_trained_and_measured(tmp_path, monkeypatch):
    made = peers.config

    def on_blocks(*args):
        cfg = made(*args)
        cfg.defrost()
        cfg.DATASETS.TRAIN = names
        return cfg

    names = register_blocks(tmp_path / "blocks")
    monkeypatch.setattr(peers, "config", on_blocks)
    words = ["peers", "--only", "LENS", "Faster R-CNN", "--seconds", "0.2", "--test", names[1], "--volumes", "1"]
    words += ["--output", str(tmp_path / "out")]
    assert main(words) == 0
    first = json.loads((tmp_path / "out/results.json").read_text())
    lens, other = first
    assert lens["steps"] > 0 and other["steps"] > 0
    work = "G multiply-adds a volume"
    assert 0.5 < other[work] / lens[work] < 2
    monkeypatch.setattr(peers, "evaluate", None)  # what was measured after as many steps is not measured again
    assert main(words) == 0
    assert json.loads((tmp_path / "out/results.json").read_text()) == first


def test_full_networks_have_their_full_sizes(tmp_path):
    lens = peers.config(tmp_path, "cpu", False)
    assert lens.MODEL.DENSENET.BLOCK_CONFIG == (6, 12, 24)
    assert all("phantom" in name for name in lens.DATASETS.TRAIN)
    assert peers.PEERS["Faster R-CNN"](lens, False).stock.MODEL.FPN.OUT_CHANNELS == 256
