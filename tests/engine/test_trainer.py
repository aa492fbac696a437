"""Training on one rank and on two (gloo, on the CPU): a step teaches one expert alone; ranks do the same work."""

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.engine import AMPTrainer, SimpleTrainer, launch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from helpers.blocks import EXPERTS, blocks_cfg, register_blocks

from lens_d2.data.loader import SampleLoader
from lens_d2.engine import LENSTrainer
from lens_d2.engine.launch import rank
from lens_d2.engine.trainer import CarefulTraining, finite_losses
from lens_d2.io.errors import DataError


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


FIXED_BATCH = ["SOLVER.REFERENCE_WORLD_SIZE", 0]  # the same global batch on any number of ranks


# Nothing that depends on which part of a batch a rank has; frozen statistics do not bring intensities to scale.
SAME = [
    *FIXED_BATCH,
    "MODEL.DENSENET.NORM",
    "FrozenBN",
    "INPUT.SCALE_RANGE",
    (1.0, 1.0),
    "MODEL.PIXEL_STD",
    [100.0],
]


def work(folder: str, steps: int = 5) -> None:
    """Train a few steps and detect in a dataset; the first rank writes losses, weights and results."""
    torch.set_num_threads(1)
    register_blocks(os.path.join(folder, f"rank{comm.get_rank()}"))
    cfg = blocks_cfg(folder, *FIXED_BATCH, *SAME)
    torch.manual_seed(0)
    trainer = LENSTrainer(cfg)
    losses = []
    with EventStorage() as storage:
        for trainer.iter in range(steps):
            trainer.run_step()
            latest = {k: v for k, (v, _) in storage.latest().items() if k.startswith("loss_")}
            losses.append(latest)
    weights = [p.detach() for p in trainer.model.parameters()]
    for name, buffer in trainer.model.named_buffers():
        if name.endswith("running_var"):  # as running statistics differ from rank to rank
            buffer.mul_(1.0 + comm.get_rank())
    results = LENSTrainer.test(cfg, trainer.model.eval())
    if comm.is_main_process():
        predictions = {p.name: p.read_bytes() for p in Path(cfg.OUTPUT_DIR).rglob("predictions*.json")}
        torch.save(
            {"losses": losses, "weights": weights, "results": dict(results), "predictions": predictions},
            os.path.join(folder, "work.pth"),
        )


def test_two_ranks_train_and_evaluate_as_one(tmp_path):
    done = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        launch(rank, ranks, dist_url="auto", args=(work, str(folder)))
        done.append(torch.load(folder / "work.pth", weights_only=False))
    one, two = done
    assert len(one["losses"][0]) == 4
    for a, b in zip(one["losses"], two["losses"], strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    for a, b in zip(one["weights"], two["weights"], strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)
    assert one["results"] and json.dumps(one["results"]) == json.dumps(two["results"])


def losses_of_steps(trainer: LENSTrainer, steps: int) -> list[float]:
    """Total losses of training steps."""
    totals = []
    with EventStorage() as storage:
        for trainer.iter in range(steps):
            trainer.run_step()
            totals.append(storage.latest()["total_loss"][0])
            storage.step()
    return totals


@pytest.mark.gpu
def test_mixed_precision_learns_on_a_gpu(tmp_path):
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path, "MODEL.DEVICE", "cuda", "SOLVER.AMP.ENABLED", True, "SOLVER.MAX_ITER", 30)
    torch.manual_seed(0)
    trainer = LENSTrainer(cfg)
    assert isinstance(trainer._trainer, AMPTrainer)
    totals = losses_of_steps(trainer, 30)
    assert np.isfinite(totals).all() and np.mean(totals[-8:]) < np.mean(totals[:8])
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
    assert trainer._trainer.grad_scaler.get_scale() > 1  # few steps were skipped for an overflow


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_low_precision_gives_finite_losses_and_gradients(tmp_path, precision):
    """The forward and backward pass of every expert under autocast, on the CPU."""
    register_blocks(tmp_path / "data")
    torch.manual_seed(0)
    trainer = LENSTrainer(blocks_cfg(tmp_path))
    plain, batches = trainer.model, iter(trainer.data_loader)
    seen = set()
    with EventStorage():
        for batch in (next(batches) for _ in range(12)):
            with torch.autocast("cpu", precision):
                losses = plain(batch)
            trainer.optimizer.zero_grad()
            sum(losses.values()).backward()
            assert all(loss.isfinite() for loss in losses.values())
            assert all(p.grad.isfinite().all() for p in plain.parameters() if p.grad is not None)
            seen.add(batch[0]["expert"])
    assert seen == set(EXPERTS)


class Careful(CarefulTraining, SimpleTrainer):
    """A trainer whose losses are given."""

    def __init__(self, losses, output_dir):
        model = torch.nn.Linear(1, 1)
        loader = SampleLoader(losses, collate_fn=lambda batch: batch[0], num_workers=0)
        super().__init__(model, loader, torch.optim.SGD(model.parameters(), lr=0.1))
        model.forward = lambda loss: {"loss": model.weight.sum() * 0 + loss}
        self.checkpointer = SimpleNamespace(save_dir=output_dir)


@pytest.mark.parametrize(
    "opts, untaught",
    [
        (["DATASETS.TRAIN", ("blocks_deeplesion", "blocks_luna")], "lits, nih_ln"),
        (["DATASETS.COMBINE", "pooling"], "luna, lits, nih_ln"),
    ],
)
def test_experts_that_nothing_teaches_are_told(tmp_path, caplog, opts, untaught):
    register_blocks(tmp_path)
    with caplog.at_level(logging.WARNING, "lens_d2"):
        LENSTrainer(blocks_cfg(tmp_path))
        assert "teaches" not in caplog.text
        LENSTrainer(blocks_cfg(tmp_path, *opts))
    told = f"no dataset of DATASETS.TRAIN teaches {untaught}, whose detections are fused all the same"
    assert f"{told}: leave it out of MODEL.LENS.EXPERTS, unless it has learned before" in caplog.text


def test_a_loss_that_is_not_finite_is_a_line_and_ends_the_workers(monkeypatch):
    trainer, closed = Careful([1.0, float("nan")], "out"), []
    monkeypatch.setattr(trainer.data_loader, "close", lambda: closed.append(True))
    with pytest.raises(DataError, match="^out: .*iteration=1.*lower SOLVER.BASE_LR") as caught:
        trainer.train(0, 2)
    assert closed == [True] and "\n" not in str(caught.value)


def test_an_assertion_about_something_else_passes():
    with pytest.raises(AssertionError, match="^wrong$"), finite_losses("out"):
        raise AssertionError("wrong")
