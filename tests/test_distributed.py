"""Training on one rank and on two (gloo, on the CPU): each step teaches one expert alone."""

import os

import pytest
import torch
from blocks import EXPERTS, blocks_cfg, register_blocks
from detectron2.engine import launch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from lens_d2.engine import LENSTrainer


def owner(name):
    """The expert whose parameter this is, or None for a shared one."""
    parts = name.removeprefix("module.").split(".")
    return next((expert for expert in EXPERTS if expert in parts), None)


def train_and_watch(folder, steps):
    """Train step by step; say after each which experts' parameters or optimiser state changed."""
    torch.set_num_threads(1)
    register_blocks(os.path.join(folder, f"rank{comm.get_rank()}"))
    cfg = blocks_cfg(folder)
    torch.manual_seed(0)
    trainer = LENSTrainer(cfg)
    optimizer, model = trainer.optimizer, trainer.model
    taught = []

    def snapshot():
        return {
            name: [p.detach().clone(), *(torch.as_tensor(v).clone() for v in optimizer.state[p].values())]
            for name, p in model.named_parameters()
        }

    with EventStorage():
        for step in range(steps):
            before = snapshot()
            trainer.iter = step
            trainer.run_step()
            changed = {
                owner(name)
                for name, after in snapshot().items()
                if len(after) != len(before[name])
                or not all(torch.equal(a, b) for a, b in zip(after, before[name], strict=True))
            }
            taught.append(changed)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    everyone = comm.all_gather((taught, weights))
    if comm.is_main_process():
        torch.save(everyone, os.path.join(folder, "watched.pth"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_step_teaches_one_expert_and_all_ranks_the_same(tmp_path, ranks):
    launch(train_and_watch, ranks, dist_url="auto", args=(str(tmp_path), 8))
    everyone = torch.load(tmp_path / "watched.pth", weights_only=True)
    assert len(everyone) == ranks
    taught, weights = everyone[0]
    for changed in taught:
        assert None in changed  # the shared layers learn at every step
        assert len(changed) == 2  # and one expert
    assert len(set().union(*taught)) > 2  # not always the same one
    for other, other_weights in everyone[1:]:
        assert other == taught
        assert torch.equal(other_weights, weights)
