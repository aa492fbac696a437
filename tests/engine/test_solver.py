"""The optimizer: the same steps as of loops over the parameters; epochs as iterations."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.utils import comm
from helpers.blocks import blocks_cfg, register_blocks
from torch import nn

from lens_d2 import add_lens_config
from lens_d2.data.loader import build_batch_sampler, load_training_records
from lens_d2.engine import LENSTrainer, build_optimizer, with_epochs


def network() -> nn.Module:
    """Two experts, of which a step teaches one; memory formats mixed, as in LENS."""
    torch.manual_seed(0)
    shared = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    experts = nn.ModuleList(nn.Conv2d(8, 2, 1) for _ in range(2))
    return nn.ModuleDict({"shared": shared, "experts": experts}).to(memory_format=torch.channels_last)


CLIPPERS = {"norm": torch.nn.utils.clip_grad_norm_, "value": torch.nn.utils.clip_grad_value_}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, clip: str = "") -> list[torch.Tensor]:
    """Five steps, the gradients large at first and small later; the second expert learns at the third step.

    Args:
        clip: how the gradients are clipped here, each parameter's by itself but for "full_model".
    """
    inputs = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    for step in range(5):
        loss = model["experts"][step == 2](model["shared"](inputs)).square().mean() * 10.0 ** (1 - step)
        optimizer.zero_grad()
        loss.backward()
        taught = [p for p in model.parameters() if p.grad is not None]
        if clip == "full_model":
            torch.nn.utils.clip_grad_norm_(taught, 0.5)
        for p in taught if clip in CLIPPERS else ():
            CLIPPERS[clip](p, 0.5)
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("clip", ["norm", "value", "full_model", ""])
@pytest.mark.parametrize("name", ["RAdam", "RAdamW", "Adam", "AdamW", "SGD"])
def test_steps_are_those_of_a_loop_over_the_parameters(name, clip):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = name, 0.01, 0.1
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = bool(clip)
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip or "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    model = network()
    ours = train(model, build_optimizer(cfg, model))

    model = network()
    norms = [p for n, p in model.named_parameters() if n.startswith("shared.1.")]
    others = [p for n, p in model.named_parameters() if not n.startswith("shared.1.")]
    groups = [{"params": others, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    options = {"SGD": {"momentum": cfg.SOLVER.MOMENTUM}, "RAdamW": {"decoupled_weight_decay": True}}.get(name, {})
    plain = getattr(torch.optim, "RAdam" if name == "RAdamW" else name)(groups, lr=0.01, foreach=False, **options)
    expected = train(model, plain, clip)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_epochs_are_as_many_on_any_ranks(tmp_path, monkeypatch, ranks):
    """Found for the reference ranks, then scaled by Detectron2: as many samples, but for rounding to a batch."""
    register_blocks(tmp_path)
    cfg = blocks_cfg(tmp_path, "SOLVER.EPOCHS", 8, "SOLVER.EPOCH_STEPS", (4, 6))
    monkeypatch.setattr(comm, "get_world_size", lambda: ranks)
    records = load_training_records(cfg)
    cfg = with_epochs(cfg, build_batch_sampler(cfg, records).epoch_length)
    per_epoch = 8 // 4 + 3 * (12 // 4)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (8 * per_epoch, (4 * per_epoch, 6 * per_epoch))

    scaled = LENSTrainer.auto_scale_workers(cfg, ranks).SOLVER
    assert scaled.IMS_PER_BATCH == 4 * ranks
    trained = [iterations * ranks for iterations in (*scaled.STEPS, scaled.MAX_ITER)]
    assert trained == pytest.approx([epochs * per_epoch for epochs in (4, 6, 8)], abs=ranks / 2)
    cfg.SOLVER.IMS_PER_BATCH = scaled.IMS_PER_BATCH
    assert len(next(iter(build_batch_sampler(cfg, records)))) == 4
