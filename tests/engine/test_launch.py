"""Ranks: bad input of one is a line; one that dies ends the run, which then resumes."""

import argparse
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from helpers.blocks import ROOT, blocks_cfg, register_blocks

from lens_d2.engine import LENSTrainer
from lens_d2.engine import launch as launcher
from lens_d2.engine.launch import rank, run
from lens_d2.io.errors import DataError


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


@pytest.mark.parametrize(
    "torchrun, option", [({}, "--num-gpus"), ({"LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "0"}, "--nproc-per-node")]
)
def test_more_ranks_than_gpus_are_refused(capsys, monkeypatch, torchrun, option):
    monkeypatch.setattr(launcher, "_num_gpus", lambda: 2)
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: bool(torchrun))
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        run(None, argparse.Namespace(num_gpus=3, num_machines=1))
    assert capsys.readouterr().err == f"{option}: 3; this machine has 2 GPUs, and each rank needs one\n"


@pytest.mark.parametrize(
    ("ranks", "given", "expected"), [(1, None, None), (8, None, "2"), (32, None, "1"), (8, "5", "5")]
)
def test_ranks_share_the_cores(monkeypatch, ranks, given, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16), raising=False)
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    launcher._share_cores(ranks)
    assert os.environ.get("OMP_NUM_THREADS") == expected


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


FIXED_BATCH = ["SOLVER.REFERENCE_WORLD_SIZE", 0]  # the same global batch on any number of ranks


RANK = """
import os, signal, sys, torch
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from helpers.blocks import register_blocks
from lens_d2.commands import train
from lens_d2.commands.options import get_parser
from lens_d2.engine import LENSTrainer, launch

torch.set_num_threads(1)
register_blocks(Path({folder!r}) / f"data{{os.environ.get('RANK', 0)}}")
step = LENSTrainer.run_step

def die_or_step(self):
    if self.iter == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    step(self)

LENSTrainer.run_step = die_or_step
launch.run(train.main, get_parser().parse_args(["train", *sys.argv[1:]]))
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


def kill_oneself(args):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_rank_that_is_killed_is_a_line(capfd):
    args = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    with pytest.raises(SystemExit) as end:
        run(kill_oneself, args)
    assert end.value.code == 128 + signal.SIGKILL
    assert "was ended by SIGKILL, as happens where memory runs out" in capfd.readouterr().err


def test_a_port_of_another_run_is_a_line(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        url = f"tcp://127.0.0.1:{port}"
        with pytest.raises(SystemExit) as end:
            run(meet_bad_input, argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url=url))
    assert end.value.code == 2
    assert f"--dist-url: the port {port} is in use, as by another run" in capsys.readouterr().err
