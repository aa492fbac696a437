"""The config of a network's training."""

import pytest
from detectron2.config import get_cfg
from detectron2.utils import comm

from lens_d2 import add_lens_config
from lens_d2.data.sampler import EpochBatchSampler
from lens_d2.engine.network_trainer import stage_config


@pytest.mark.parametrize(("ranks", "batch"), [(1, 32), (8, 32), (3, 33), (64, 64)])
@pytest.mark.parametrize("role", ["FPR", "LPC"])
def test_a_batch_of_another_network_grows_to_what_the_ranks_can_share(monkeypatch, ranks, batch, role):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.MODEL[role].SOLVER.IMS_PER_BATCH = 32
    monkeypatch.setattr(comm, "get_world_size", lambda: ranks)
    assert stage_config(cfg, cfg.MODEL[role], role.lower()).SOLVER.IMS_PER_BATCH == batch
    assert len(next(iter(EpochBatchSampler(lambda rng: rng.permutation(90), batch, seed=0)))) == batch // ranks
