"""One rank and two (gloo, on the CPU) do the same work; a rank that dies ends the run, which then resumes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from blocks import ROOT, blocks_cfg, register_blocks
from detectron2.engine import launch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from lens_d2.engine import LENSTrainer
from lens_d2.engine.launch import rank

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


RANK = """
import os, signal, sys, torch
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from blocks import register_blocks
import train_net
from detectron2.engine import default_argument_parser
from lens_d2.engine import LENSTrainer, launch

torch.set_num_threads(1)
register_blocks(Path({folder!r}) / f"data{{os.environ.get('RANK', 0)}}")
step = LENSTrainer.run_step

def die_or_step(self):
    if self.iter == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    step(self)

LENSTrainer.run_step = die_or_step
launch.run(train_net.main, default_argument_parser().parse_args())
"""


def test_a_rank_that_dies_ends_the_run_and_resume_goes_on(tmp_path, monkeypatch):
    """Below torchrun: the second of two ranks is killed after a checkpoint."""
    script, config = tmp_path / "rank.py", tmp_path / "blocks.yaml"
    script.write_text(RANK.format(root=str(ROOT), tests=str(ROOT / "tests"), folder=str(tmp_path)))
    cfg = blocks_cfg(
        tmp_path, *FIXED_BATCH, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 6, "TEST.OVERLAYS", 0
    )
    cfg.DATASETS.TEST = ()
    config.write_text(cfg.dump())
    words = ["--config-file", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    killed = subprocess.run(
        [*command, str(script), *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert killed.returncode != 0
    assert f"Signal {signal.SIGKILL.value}" in killed.stderr or "SIGKILL" in killed.stderr
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000001.pth"
    assert not (Path(cfg.OUTPUT_DIR) / "model_final.pth").exists()

    started = []
    monkeypatch.syspath_prepend(str(ROOT))
    register_blocks(tmp_path / "data")
    cfg.merge_from_list(["SOLVER.MAX_ITER", 4])
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load(resume=True)
    step = trainer.run_step
    monkeypatch.setattr(trainer, "run_step", lambda: started.append(trainer.iter) or step())
    trainer.train()
    assert started == [2, 3]
    assert (Path(cfg.OUTPUT_DIR) / "model_final.pth").exists()
