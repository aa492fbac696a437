"""Trainings that are asked to stop: one process and two ranks (gloo, on the CPU)."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from detectron2.utils.env import seed_all_rng
from helpers.blocks import blocks_cfg, register_blocks
from helpers.processes import run_line

from lens_d2.engine import LENSTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

# Two ranks share the batch of the config, so that their training is resumed by two.
OPTS = (
    "SOLVER.REFERENCE_WORLD_SIZE", 0, "SOLVER.MAX_ITER", 5, "SOLVER.CHECKPOINT_PERIOD", 100, "TEST.OVERLAYS", 0,
    "SOLVER.STEPS", (3,), "DATASETS.TEST", (),
)  # fmt: skip
RUN = """
import functools, multiprocessing, os, signal, sys, torch.multiprocessing
from pathlib import Path
from detectron2.utils import comm
from helpers.blocks import register_blocks
from lens_d2.commands import train
from lens_d2.commands.options import get_parser
from lens_d2.engine import LENSTrainer, launch

torch.set_num_threads(1)
multiprocessing.set_start_method("fork", force=True)  # Linux's own
start = torch.multiprocessing.start_processes
torch.multiprocessing.start_processes = functools.partial(start, start_method="fork")  # sooner
folder, ask = {folder!r}, {ask!r}
register_blocks(Path(folder) / "data")
step = LENSTrainer.run_step

def ask_and_step(self):
    if self.iter == 2 and comm.get_rank() == comm.get_world_size() - 1:
        exec(ask)
    step(self)

LENSTrainer.run_step = ask_and_step
launch.run(train.main, get_parser().parse_args(["train", "--num-gpus", "{ranks}", *sys.argv[1:]]))
"""
# A batch system signals all processes of a job, or one of them.
EVERYONE = "os.killpg(0, signal.SIGUSR1)"
ONE_RANK = "os.kill(os.getpid(), signal.SIGTERM)"


def train(folder: Path, ask: str, *options: str, ranks: int = 1, workers: int = 0) -> subprocess.CompletedProcess:
    """Trains in a session of its own, with the code ``ask`` run by the last rank as its third step begins."""
    cfg = blocks_cfg(folder, *OPTS, "DATALOADER.NUM_WORKERS", workers)
    (folder / "blocks.yaml").write_text(cfg.dump())
    (folder / "run.py").write_text(RUN.format(folder=str(folder), ask=ask, ranks=ranks))
    words = ["python", "run.py", "--config-file", "blocks.yaml", "--dist-url", "auto", *options]
    return run_line(shlex.join(words), folder, CUDA_VISIBLE_DEVICES="")


def finish(folder: Path, resume: bool = False) -> dict[str, torch.Tensor]:
    """Trains to the end in this process, and returns the final weights."""
    register_blocks(folder / "data")
    cfg = blocks_cfg(folder, *OPTS)
    seed_all_rng(cfg.SEED)
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    return torch.load(folder / "output/model_final.pth", weights_only=True)["model"]


@pytest.mark.parametrize(("ranks", "ask", "workers"), [(1, EVERYONE, 1), (2, ONE_RANK, 0), (2, EVERYONE, 0)])
def test_asked_to_end_it_finishes_its_step_asks_for_a_requeue_and_goes_on(tmp_path, ranks, ask, workers):
    ended = train(tmp_path, ask, ranks=ranks, workers=workers)
    assert ended.returncode == 75, ended.stderr
    assert "stopped on request (status 75)" in ended.stderr and "Traceback" not in ended.stderr
    assert "a checkpoint after 3 of 5 iterations" in ended.stdout
    output = tmp_path / "output"
    assert (output / "last_checkpoint").read_text() == "model_0000002.pth"
    assert not (output / "model_final.pth").exists()
    written = [json.loads(line)["iteration"] for line in (output / "metrics.json").read_text().splitlines()]
    assert max(written) == 2  # the logs of the last step are not lost
    if ranks == 1:
        resumed, whole = finish(tmp_path, resume=True), finish(tmp_path / "whole")
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)
