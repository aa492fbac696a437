"""The config of a network's training."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.utils import comm
from helpers.kills import Killed, kill_at

from lens_d2 import add_lens_config
from lens_d2.config import load_config
from lens_d2.data.sampler import EpochBatchSampler
from lens_d2.engine.network_trainer import NetworkTrainer, stage_config


class Ones(torch.utils.data.Dataset):
    """Samples that are all the same."""

    def __getitem__(self, drawn):
        return torch.ones(1)


class Learner(torch.nn.Module):
    """Loss of a network whose weight is to become 0."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch):
        return {"loss": self.network(batch).square().mean()}


def trainer(folder, weight=1.0):
    cfg = load_config("", ["OUTPUT_DIR", str(folder), "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 4])
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0, "SOLVER.STEPS", (), "SOLVER.EPOCHS", 0]
    )
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, weight)
    batches = EpochBatchSampler(lambda rng: rng.permutation(4), 2, seed=0)
    return NetworkTrainer(cfg, network, Learner(network), Ones(), batches)


def test_what_begins_anew_is_not_resumed_from_an_earlier_run(tmp_path, monkeypatch):
    """The second run is killed before its first checkpoint; the third goes on with nothing of the first."""
    trainer(tmp_path).run()
    second = trainer(tmp_path, 100.0)
    kill_at(monkeypatch, NetworkTrainer, "run_step", 3)
    with pytest.raises(Killed):
        second.run()
    monkeypatch.undo()
    third = trainer(tmp_path, 100.0)
    third.run(resume=True)
    assert third.network.weight.item() > 99


def test_the_folder_of_a_network_is_below_the_runs():
    cfg = load_config("", ["OUTPUT_DIR", "./output//x"])
    assert stage_config(cfg, cfg.MODEL.FPR, "fpr").OUTPUT_DIR == "output/x/fpr"


@pytest.mark.parametrize(("ranks", "batch"), [(1, 32), (8, 32), (3, 33), (64, 64)])
@pytest.mark.parametrize("role", ["FPR", "LPC"])
def test_a_batch_of_another_network_grows_to_what_the_ranks_can_share(monkeypatch, ranks, batch, role):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.MODEL[role].SOLVER.IMS_PER_BATCH = 32
    monkeypatch.setattr(comm, "get_world_size", lambda: ranks)
    assert stage_config(cfg, cfg.MODEL[role], role.lower()).SOLVER.IMS_PER_BATCH == batch
    assert len(next(iter(EpochBatchSampler(lambda rng: rng.permutation(90), batch, seed=0)))) == batch // ranks
