"""tools/compare_peers.py: every detector gets the same time, and a run that was stopped goes on."""

import sys

import pytest
import torch


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


def test_the_peers(tool):
    assert list(tool.PEERS) == ["LENS", "Faster R-CNN", "RetinaNet 3D"]
