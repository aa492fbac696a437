"""Training on one rank and on two (gloo, on the CPU): each step teaches one expert alone."""

import argparse
import os

import pytest
import torch
from blocks import EXPERTS, blocks_cfg, register_blocks
from detectron2.engine import launch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from lens_d2.engine import LENSTrainer
from lens_d2.engine import launch as launcher
from lens_d2.engine.launch import rank, run
from lens_d2.errors import DataError


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
    launch(rank, ranks, dist_url="auto", args=(train_and_watch, str(tmp_path), 8))
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


def meet_bad_input(args):
    if comm.get_rank() == args.rank:
        raise DataError("scan.nii.gz", "not a volume")
    comm.synchronize()


@pytest.mark.parametrize("ranks, bad", [(1, 0), (2, 1)])
def test_bad_input_of_a_rank_is_a_line_and_an_exit_code(capfd, ranks, bad):
    args = argparse.Namespace(num_gpus=ranks, num_machines=1, machine_rank=0, dist_url="auto", rank=bad)
    with pytest.raises(SystemExit) as end:
        run(meet_bad_input, args)
    assert end.value.code == 2
    assert "scan.nii.gz: not a volume" in capfd.readouterr().err.splitlines()


@pytest.mark.parametrize("local_rank", [0, 1])
def test_the_first_of_torchruns_ranks_tells_of_what_all_find(capsys, monkeypatch, local_rank):
    """The others wait to be ended, and tell of it themselves if they are not."""
    waited = []
    monkeypatch.setattr(launcher.time, "sleep", lambda s: waited.append((s, capsys.readouterr().err)))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    with pytest.raises(SystemExit) as end:
        run(meet_bad_input, argparse.Namespace(rank=0), check=meet_bad_input)
    assert end.value.code == 2
    assert waited == [(launcher.PATIENCE_S, "")] * local_rank
    assert capsys.readouterr().err == "scan.nii.gz: not a volume\n"


def test_a_rank_leaves_its_process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    there = []
    rank(there.append, torch.distributed.get_world_size())
    assert there == [1] and not torch.distributed.is_initialized()
