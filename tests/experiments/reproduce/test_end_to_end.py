"""Rows of a table made for real: the smallest cohort, two steps of a narrow network; and experiments/gpu.sh."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from types import SimpleNamespace

import pytest
import yaml
from helpers.processes import Forked

from experiments import reproduce
from experiments.__main__ import main
from experiments.reproduce import jobs

OPTS = {
    "SOLVER.STEPS": [],
    "SOLVER.MAX_ITER": 2,
    "SOLVER.IMS_PER_BATCH": 2,
    "DATASETS.TEST": ["phantom_deeplesion_1k_test"],
    "TEST.OVERLAYS": 0,
    "TEST.DETECTIONS_PER_IMAGE": 5,
    "TEST.LINK_SCORE_THRESH": 0.01,
    "VIS_PERIOD": 0,
    "DATALOADER.NUM_WORKERS": 0,
    "MODEL.DENSENET.WEIGHTS": "",
    "MODEL.DENSENET.GROWTH_RATE": 4,
    "MODEL.DENSENET.BLOCK_CONFIG": [2, 2, 2],
    "MODEL.DENSENET.INIT_FEATURES": 8,
    "MODEL.DENSENET.OUT_CHANNELS": 16,
    "MODEL.AFP.CONV_DIM": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "INPUT.PIXEL_SPACING": 4.0,
    "INPUT.SLICE_INTERVAL": 6.0,
}
ALONE = {"DATASETS.TRAIN": ["phantom_deeplesion_train"], "MODEL.LENS.EXPERTS": ["deeplesion"]}
MINED = {"STAGES": ["train"], "MINING.STRATEGIES": ["CrossSlice", "CrossDataset"], "MINING.IOU": 0.01}
MINED |= {"MINING.CROSS_DATASET.SCORE_THRESH": 0.1}
LEDGER = {"run": "both", "file": "train/mining/ledger.parquet", "strategies": ["CrossSlice"]}
HIDDEN = {"DATASETS.TRAIN": ["phantom_deeplesion_train_key_truth"], "MODEL.LENS.EXPERTS": ["deeplesion"]}
TABLE = {
    "title": "A table",
    "source": "Nobody's",
    "cohort": {"size": "tiny", "seed": 0},
    "dataset": "phantom_deeplesion_1k_test",
    "config": "configs/phantom/lens_multi.yaml",
    "opts": OPTS,
    "columns": {"Average": "average_sensitivity", "ms": "ms_per_slice", "2D": "boxes", "Uncertain": "uncertain"},
    "rows": [
        {"name": "hidden", "opts": HIDDEN, "readers": ["experiments/reproduce/hidden_truth.py"]},
        {"name": "both", "opts": MINED, "stage": "train"},
        {"name": "universal expert", "run": "both", "stage": "train", "output": "deeplesion"},
        {"name": "mined", "opts": ALONE, "given": {"DATASETS.LEDGER": LEDGER}},
        {"name": "fused", "ensemble": ["hidden", "mined"]},
    ],
}


@pytest.fixture(scope="module")
def made(repo_root, demo, tmp_path_factory):
    """The folder of the work and the results."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "table.yaml").write_text(yaml.safe_dump(TABLE, sort_keys=False))
    cohort = folder / "work/cohorts/tiny_0"
    cohort.parent.mkdir(parents=True)
    cohort.symlink_to(demo / "data")
    words = ["--table", str(folder / "table.yaml"), "--output", str(folder / "results")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "subprocess", SimpleNamespace(Popen=Forked, STDOUT=subprocess.STDOUT))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("COMMIT", "abc1234")
        assert main(["reproduce", *words, "--work", str(folder / "work"), "--jobs", "2", "--workers", "1"]) == 0
    return folder


def test_every_run_leaves_a_record(made, demo):
    folder = made
    cohort = json.loads((demo / "data/phantom/phantom.json").read_text())["counts"]["deeplesion_test"]
    records = [json.loads(path.read_text()) for path in (folder / "results/runs").glob("*.json")]
    assert len(records) == 4
    for record in records:
        assert record["commit"] == "abc1234" and record["machine"]["threads"] == 1 and record["seconds"] > 0
        assert record["cohort"]["size"] == "tiny" and record["cohort"]["generator"]["layout"]
        assert record["numbers"]["parameters"] > 0 and record["numbers"]["ms_per_slice"] > 0
        (evaluation,) = (of["phantom_deeplesion_1k_test"] for of in record["evaluations"].values())
        assert len(evaluation["metrics"]["average_sensitivity_ci"]) == 2
        assert [len(own) for own in evaluation["events"][""]["hits"]]
        assert len(evaluation["volumes"]) == cohort["volumes"]
    counts = {record["run"]["config"] + str(record["run"]["given"]): record["numbers"] for record in records}
    mined = next(numbers for key, numbers in counts.items() if "CrossSlice" in key)
    assert mined["uncertain"] == 0  # those of the strategy that it was not given are left out


def test_the_page_is_made_of_the_records_alone(made, tmp_path):
    shutil.copytree(made / "results/runs", tmp_path / "runs")
    words = ["--table", str(made / "table.yaml"), "--output", str(tmp_path)]
    assert main(["reproduce", *words, "--render"]) == 0
    page = (tmp_path / "table.md").read_text()
    assert page.count("1 of 1") == 5 and "0 of 1" not in page
    assert (tmp_path / "table.png").is_file()


def test_nothing_is_made_twice(made, capsys):
    words = ["--table", str(made / "table.yaml"), "--output", str(made / "results")]
    assert main(["reproduce", *words, "--work", str(made / "elsewhere")]) == 0
    assert capsys.readouterr().out == f"{made / 'results/table.md'}\n"


# Does what `python -m experiments reproduce` would do on a machine with GPUs, as far as experiments/gpu.sh sees.
STAND_IN = """#!{python}
import json, os, sys, time
from pathlib import Path
work = Path(sys.argv[sys.argv.index("--work") + 1])
(work / "words.json").write_text(json.dumps(sys.argv[1:]))
for path in ("results/runs/new.json", "runs/tiny_0/new/log.txt", "runs/tiny_0/new/model_final.pth"):
    (work / path).parent.mkdir(parents=True, exist_ok=True)
    (work / path).write_text("new")
if "STAYS" in os.environ:
    Path(os.environ["STAYS"]).touch()
    time.sleep(60)
sys.exit(3)
"""
GPU_SH = ["bash", "experiments/gpu.sh", "lens-1", "gap", "--", "SOLVER.MAX_ITER", "2"]


@pytest.fixture
def gpu_environment(tmp_path):
    """The variables of a call of ``GPU_SH`` with the stand-in."""
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    variables = {"OUT": tmp_path / "out", "WORK": tmp_path / "work", "PYTHON": stand_in, "SEEDS": "1 2", "JOBS": 2}
    return {**os.environ, **{name: str(value) for name, value in variables.items()}}


def names_in(archive):
    with tarfile.open(archive) as file:
        return file.getnames()


def test_on_a_machine_with_gpus_one_call_packs_what_is_new(repo_root, tmp_path, gpu_environment):
    """And its options are those of the command, its status is the command's, if runs have failed."""
    run = subprocess.run(GPU_SH, cwd=repo_root, env=gpu_environment, capture_output=True, text=True)
    assert run.returncode == 3, run.stderr
    module, name, command, *given = json.loads((tmp_path / "work/words.json").read_text())
    assert (module, name, command) == ("-m", "experiments", "reproduce")
    parser = argparse.ArgumentParser()
    reproduce.add_arguments(parser)
    args = parser.parse_args(given)
    assert (args.table, args.seeds, args.jobs, args.minutes) == (["lens-1", "gap"], [1, 2], 2, 8)
    assert args.output == tmp_path / "work/results" and args.opts == ["SOLVER.MAX_ITER", "2"]
    assert names_in(tmp_path / "out/records.tar.gz") == ["./runs/new.json"]
    assert names_in(tmp_path / "out/logs.tar.gz") == ["./tiny_0/new/log.txt"]


def test_a_terminated_call_packs_what_is_there(repo_root, tmp_path, gpu_environment):
    stays = tmp_path / "stays"
    with subprocess.Popen(GPU_SH, cwd=repo_root, env={**gpu_environment, "STAYS": str(stays)}) as run:
        while not stays.exists():
            assert run.poll() is None
            time.sleep(0.05)
        run.terminate()
        assert run.wait(30) == 128 + signal.SIGTERM
    assert names_in(tmp_path / "out/records.tar.gz") == ["./runs/new.json"]
