"""The one line with which commands end on a fault; what they leave and how they go on. (As they stand in the
documents: tests/test_advertised.py.)"""

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.advertised import NETWORK, SHORT
from helpers.blocks import blocks_cfg, register_blocks
from helpers.processes import run_line
from helpers.scan_files import make_affine, write_volume

from lens_d2.commands import main
from lens_d2.engine import LENSTrainer
from lens_d2.io.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = "--config-file configs/phantom/lens_multi.yaml"


@pytest.fixture
def cohort(demo) -> Path:
    """A folder of datasets with the smallest synthetic cohort, prepared for the shipped config."""
    return demo / "data"


def last_line(run: subprocess.CompletedProcess) -> str:
    lines = run.stderr.strip().splitlines()
    assert run.returncode == 2, run.stderr
    assert not any("Traceback" in line for line in lines), run.stderr
    return lines[-1]


# Faults of a call are one line and status 2.

FAULTS = {
    "": "--config-file: not given",
    "--config-file lens_mulit.yaml": "lens_mulit.yaml: no such config file; did you mean lens_multi.yaml",
    f"{SHIPPED} SOLVER.BASE_LRR 1": "SOLVER.BASE_LRR: no config key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR",
    f"{SHIPPED} SOLVER.BASE_LR": "SOLVER.BASE_LR: a config key without a value",
    f"{SHIPPED} SOLVER.MAX_ITER many": "SOLVER.MAX_ITER: the configuration cannot be used: Type mismatch",
    f"{SHIPPED} DATASETS.TRAIN ('phantom_luna_trian',)": "DATASETS.TRAIN: no 'phantom_luna_trian'; did you mean",
    f"{SHIPPED} MODEL.PROPOSAL_GENERATOR.NAME AFB": "MODEL.PROPOSAL_GENERATOR.NAME: no 'AFB'; did you mean AFP",
    f"{SHIPPED} INPUT.AUGMENTATIONS ('Shfit',)": "INPUT.AUGMENTATIONS: no 'Shfit'; did you mean Shift",
    f"{SHIPPED} MODEL.FPR.COMBINE meen": "MODEL.FPR.COMBINE: no 'meen'; did you mean mean",
    f"{SHIPPED} SOLVER.CLIP_GRADIENTS.CLIP_TYPE sum": "SOLVER.CLIP_GRADIENTS.CLIP_TYPE: no 'sum'; there are value",
    f"{SHIPPED} MODEL.LPC.NAME GLCMV": "MODEL.LPC.NAME: no 'GLCMV'; did you mean GLC_MV",
    f"{SHIPPED} MODEL.LPC.LOSS l2": "MODEL.LPC.LOSS: no 'l2'; there are",
    f"{SHIPPED} HARVEST.PROPOSALS lung": "HARVEST.PROPOSALS: no 'lung'; did you mean luna",
    f"{SHIPPED} HARVEST.LABELS ('lesions',)": "HARVEST.LABELS: no 'lesions'; there are verified_recovered",
    f"{SHIPPED} DATASETS.EPOCH slice": "DATASETS.EPOCH: no 'slice'; did you mean slices",
    f"{SHIPPED} MODEL.DEVICE gpu": "MODEL.DEVICE: no device 'gpu'; cpu, cuda or cuda:N",
    f"{SHIPPED} SOLVER.AMP.ENABLED True": "SOLVER.AMP.ENABLED: True, and the training is on the CPU",
    f"{SHIPPED} --num-gpus 3 SOLVER.REFERENCE_WORLD_SIZE 0": "SOLVER.IMS_PER_BATCH: 3 ranks cannot share a batch",
    f"{SHIPPED} SOLVER.CHECKPOINT_PERIOD 0": "SOLVER.CHECKPOINT_PERIOD: 0; at least 1 is needed",
    f"{SHIPPED} MODEL.FPR.SOLVER.IMS_PER_BATCH 0": "MODEL.FPR.SOLVER.IMS_PER_BATCH: 0; at least 1 is needed",
    f"--eval-only {SHIPPED}": "MODEL.WEIGHTS: empty: an evaluation needs trained weights",
    "--config-file configs/lens_multi.yaml --num-gpus 1": "MODEL.DEVICE: cuda, but torch finds no GPU, and --num",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="some of these are faults where there is no GPU")
@pytest.mark.parametrize("words", FAULTS)
def test_a_faulty_call_is_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main(["train", *words.split()])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(FAULTS[words])


# GPUs that were promised


# A run that is under way


def test_a_period_that_ranks_divide_to_nothing_is_one(tmp_path):
    cfg = blocks_cfg(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 1, "TEST.EVAL_PERIOD", 1, "SOLVER.IMS_PER_BATCH", 4)
    scaled = LENSTrainer.auto_scale_workers(cfg, 8)
    assert (scaled.SOLVER.CHECKPOINT_PERIOD, scaled.TEST.EVAL_PERIOD, scaled.SOLVER.IMS_PER_BATCH) == (1, 1, 32)
    never = LENSTrainer.auto_scale_workers(blocks_cfg(tmp_path, "TEST.EVAL_PERIOD", 0), 8)
    assert never.TEST.EVAL_PERIOD == 0


def test_a_loss_that_is_not_finite_is_a_line(tmp_path, caplog):
    register_blocks(tmp_path / "data")
    trainer = LENSTrainer(blocks_cfg(tmp_path, "SOLVER.MAX_ITER", 2))
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="NaN.*lower SOLVER.BASE_LR") as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert not any(record.exc_info for record in caplog.records if "train_loop" in record.name)


# A full disk. A limit on the size of files stands in for it: writing beyond it fails as on a full disk.


def limited(words: str, size: int, cohort: Path) -> subprocess.CompletedProcess:
    """A command run with a limit on the bytes of a file."""
    body = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
    body += "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    line = shlex.join(["python", "-c", body, str(size), *shlex.split(words)])
    return run_line(line, ROOT, DETECTRON2_DATASETS=str(cohort))


def test_training_on_a_full_disk_is_a_line_and_resumes(cohort, tmp_path):
    out = tmp_path / "out"
    opts = f"OUTPUT_DIR {out} {SHORT} DATASETS.TEST ()"
    line = last_line(limited(f"train_net.py {SHIPPED} {opts}", 60_000, cohort))
    assert str(out) in line and "cannot be written: File too large" in line
    assert not [p for p in out.iterdir() if p.name.endswith(".pth")]
    (tmp_path / "train_net.py").symlink_to(ROOT / "train_net.py")
    again = run_line(f"python train_net.py {SHIPPED} --resume {opts}", tmp_path, DETECTRON2_DATASETS=str(cohort))
    assert again.returncode == 0, again.stderr[-2000:]


def test_preparing_on_a_full_disk_leaves_nothing_out(cohort, tmp_path):
    words = f"datasets/prepare_datasets.py phantom_luna_train --cache-dir {tmp_path / 'cache'} --processes 1"
    line = last_line(limited(words, 3_000, cohort))
    assert "cannot be written" in line
    assert not list((cohort / "phantom/cache").glob("left_out/*"))


PREDICT = """
import contextlib, io, json, os, resource, sys
from lens_d2.commands import main
output = sys.argv[1]
for size in (1_000, 30_000, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    with contextlib.redirect_stderr(io.StringIO()) as told:
        status = main(["predict", "--output", output, *sys.argv[2:]])
    left = [os.listdir(folder) if os.path.isdir(folder) else [] for folder in (output, os.environ["TMPDIR"])]
    lines = [line for line in told.getvalue().splitlines() if " torch/" not in line]  # warnings of torch's own
    print("LEFT", json.dumps([status, lines, *left]))
"""


def test_predicting_on_a_full_disk_is_a_line_and_nothing_half_written(tmp_path):
    """Without room for the table; with room for it and none for the report, as it would be half of it; for all."""
    array = np.full((5, 40, 48), -1000, np.int16)
    array[:, 4:36, 4:44] = np.random.default_rng(0).normal(40, 60, (5, 32, 40)).astype(np.int16)
    scan, output = write_volume(tmp_path / "ct.nii.gz", array, make_affine((4, 4, 3))), tmp_path / "out"
    (tmp_path / "tmp").mkdir()
    options = ["--allow-random-weights", "--input", str(scan), *SHIPPED.split(), "--opts", *shlex.split(NETWORK)]
    line = shlex.join(["python", "-c", PREDICT, str(output), *options])
    run = run_line(line, ROOT, TMPDIR=str(tmp_path / "tmp"))
    assert run.returncode == 0, run.stderr
    table, report, done = (json.loads(line[5:]) for line in run.stdout.splitlines() if line.startswith("LEFT "))
    assert table[:2] == [2, [f"{output / 'detections.csv'}: cannot be written: File too large"]]
    assert "detections.csv" not in table[2] and not any(name.startswith(".") for name in table[2])
    assert report[:2] == [2, [f"{output / 'report.html'}: cannot be written: File too large"]]
    assert report[2] == []
    assert done[:2] == [0, []] and {"report.html", "detections.json", "detections.csv"} <= set(done[2])
    assert table[3] == report[3] == done[3] == []  # nothing in TMPDIR


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_asked_to_end_while_it_begins_a_run_says_try_again(monkeypatch, number):
    monkeypatch.setattr("lens_d2.commands.train.run", lambda args: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        main(["train", "--config-file", "configs/phantom/lens_multi.yaml"])
    assert end.value.code == 75 and signal.getsignal(number) is before
