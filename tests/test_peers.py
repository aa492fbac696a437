"""tools/compare_peers.py: every detector gets the same time, and a run that was stopped goes on."""

import sys

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture(scope="module")
def tool(load_script):
    path = list(sys.path)
    module = load_script("tools/compare_peers.py")
    sys.path[:] = path
    return module


class Line:
    """A peer with one weight."""

    def __init__(self):
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def batches(self):
        while True:
            yield torch.ones(200, 1)

    def losses(self, batch):
        return {"loss": (self.model(batch) - 3).square().mean()}


def test_training_ends_with_the_budget_and_goes_on_with_a_larger_one(tool, tmp_path):
    first = Line()
    steps = tool.train(first, 0.05, tmp_path)
    assert steps > 0 and first.optimizer.param_groups[0]["lr"] < 0.1
    again = Line()
    assert tool.train(again, 0.05, tmp_path) == steps  # nothing is left to do
    assert torch.equal(again.model.weight, first.model.weight)
    assert tool.train(Line(), 0.1, tmp_path) > steps


def test_the_first_volumes_are_a_dataset_of_their_own(tool):
    DatasetCatalog.register("peers_all", lambda: [{"volume": str(i)} for i in range(5)])
    MetadataCatalog.get("peers_all").set(fully_labelled=True)
    assert tool.first_of("peers_all", 0) == "peers_all"
    name = tool.first_of("peers_all", 2)
    assert [record["volume"] for record in DatasetCatalog.get(name)] == ["0", "1"]
    assert MetadataCatalog.get(name).fully_labelled and tool.first_of("peers_all", 2) == name


def test_the_peers(tool):
    assert list(tool.PEERS) == ["LENS", "Faster R-CNN", "RetinaNet 3D"]
