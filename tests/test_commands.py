"""The advertised commands as they stand, on a tiny cohort; and the one line with which they end on a fault."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.blocks import blocks_cfg, register_blocks

from lens_d2.engine import LENSTrainer
from lens_d2.io.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = "--config-file configs/phantom/lens_multi.yaml"
SHORT = (
    "MODEL.DENSENET.GROWTH_RATE 4 MODEL.DENSENET.BLOCK_CONFIG (2,2,2) MODEL.DENSENET.INIT_FEATURES 8 "
    "MODEL.DENSENET.OUT_CHANNELS 16 MODEL.AFP.CONV_DIM 8 MODEL.ROI_BOX_HEAD.FC_DIM 16 SOLVER.IMS_PER_BATCH 2 "
    "SOLVER.MAX_ITER 2 SOLVER.STEPS () SOLVER.CHECKPOINT_PERIOD 1 TEST.OVERLAYS 0 VIS_PERIOD 0"
)
ONE_TEST = "DATASETS.TEST ('phantom_luna_val',)"
MINED = f"{SHORT} {ONE_TEST} STAGES ('train',) MINING.STRATEGIES ('CrossSlice',)"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """A folder of datasets with the smallest synthetic cohort, prepared for the shipped config."""
    folder = tmp_path_factory.mktemp("datasets")
    environment = {**os.environ, "DETECTRON2_DATASETS": str(folder)}
    for command in (
        ["datasets/prepare_phantom.py", "--size", "tiny", "--output", str(folder / "phantom")],
        ["datasets/prepare_datasets.py", "--processes", "1", *SHIPPED.split()],
    ):
        words = [sys.executable, *command]
        subprocess.run(words, cwd=ROOT, check=True, capture_output=True, env=environment)
    return folder


@pytest.fixture
def command(cohort, tmp_path):
    """command(words, env) runs a command line of the documentation; the output goes to tmp_path / "out"."""

    def run(words: str, **env: str) -> subprocess.CompletedProcess:
        words = words.replace("python ", f"{sys.executable} ", 1)
        words = words.replace("torchrun ", f"{sys.executable} -m torch.distributed.run ", 1)
        environment = {**os.environ, "DETECTRON2_DATASETS": str(cohort), "OMP_NUM_THREADS": "1", **env}
        return subprocess.run(
            words.split(), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )

    return lambda words, **env: run(words.replace(" OUT ", f" OUTPUT_DIR {tmp_path / 'out'} "), **env)


def last_line(run: subprocess.CompletedProcess) -> str:
    lines = run.stderr.strip().splitlines()
    assert run.returncode == 2, run.stderr
    assert not any("Traceback" in line for line in lines), run.stderr
    return lines[-1]


# Several ranks, with the config's own loader workers


@pytest.mark.parametrize(
    "launcher",
    [
        "python train_net.py --config-file configs/phantom/lens_multi.yaml --num-gpus 2",
        "torchrun --nproc-per-node 2 train_net.py --config-file configs/phantom/lens_full.yaml",
    ],
)
def test_two_ranks_train_propose_mine_and_evaluate(command, tmp_path, launcher):
    run = command(f"{launcher} OUT {MINED}")
    assert run.returncode == 0, run.stderr[-3000:]
    out = tmp_path / "out/train"
    assert (out / "model_final.pth").is_file() and list((out / "mining").glob("ledger*"))
    assert (out / "inference/phantom_luna_val/metrics.json").is_file()


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
    f"{SHIPPED} HARVEST.LABELS ('lesions',)": "HARVEST.LABELS: no 'lesions'; there are recovered, harvested",
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
    monkeypatch.syspath_prepend(str(ROOT))
    import train_net
    from lens_d2.engine import launch

    monkeypatch.chdir(ROOT)
    args = launch.argument_parser().parse_args(words.split())
    with pytest.raises(SystemExit) as ended:
        launch.run(train_net.main, args, check=train_net.read_config)
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


def limited(words: str, size: int) -> str:
    """The command with a limit on the bytes of a file."""
    body = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
    body += "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return f'python -c "{body}" {size} {words}'


def test_training_on_a_full_disk_is_a_line_and_resumes(command, cohort, tmp_path):
    words = f"train_net.py {SHIPPED} OUT {SHORT} DATASETS.TEST () DATALOADER.NUM_WORKERS 0"
    full = run_limited(limited(words, 60_000).split('"'), cohort, tmp_path)
    line = last_line(full)
    assert str(tmp_path / "out") in line and "cannot be written: File too large" in line
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.endswith(".pth")]
    again = command(
        f"python train_net.py {SHIPPED} --resume OUT {SHORT} DATASETS.TEST () DATALOADER.NUM_WORKERS 0"
    )
    assert again.returncode == 0, again.stderr[-2000:]


def run_limited(body: list[str], cohort: Path, folder: Path) -> subprocess.CompletedProcess:
    words = [sys.executable, "-c", body[1], *body[2].replace(" OUT ", f" OUTPUT_DIR {folder / 'out'} ").split()]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(cohort), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_preparing_on_a_full_disk_leaves_nothing_out(cohort, tmp_path):
    words = f"datasets/prepare_datasets.py phantom_luna_train --cache-dir {tmp_path / 'cache'} --processes 1"
    line = last_line(run_limited(limited(words, 3_000).split('"'), cohort, tmp_path))
    assert "cannot be written" in line
    assert not list((cohort / "phantom/cache").glob("left_out/*"))


# The README's commands for real data, one after another, in a folder of their own


def test_the_readmes_commands_for_real_data(cohort, tmp_path):
    """As they stand, with overrides at their ends that make them short; the cohort has the real formats."""
    for name in ("train_net.py", "configs", "demo", "tools", "datasets"):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (ROOT / "README.md").read_text()
    lines = [line.split("  #")[0].strip() for line in text.splitlines()]
    prepare, *trainings = [
        line
        for line in lines
        if line.startswith("python") and "configs/lens_multi.yaml" in line and "num-gpus" not in line
    ]
    assert "prepare_datasets.py" in prepare and any("--resume" in line for line in trainings)
    assert any("--eval-only" in line for line in trainings) and len(trainings) == 4
    environment = {**os.environ, "DETECTRON2_DATASETS": str(cohort / "phantom"), "OMP_NUM_THREADS": "1"}
    short = [*SHORT.split(), "MODEL.DENSENET.WEIGHTS", "", "SOLVER.EPOCHS", "0", "DATALOADER.NUM_WORKERS", "0"]
    short += ["DATASETS.TEST", "('luna_val',)", "INPUT.MAX_SIZE", "256"]
    for line in (prepare, *trainings):
        words = [sys.executable, *line.split()[1:], *(short if line != prepare else ["--processes", "1"])]
        run = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, f"{line}\n{run.stderr[-2000:]}"
    assert (tmp_path / "output/lens_multi/inference/luna_val/metrics.json").is_file()
    assert (tmp_path / "output/faster/model_final.pth").is_file()
