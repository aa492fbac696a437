"""Rows of a table made for real: the smallest cohort, two steps of a narrow network, by experiments/gpu.sh."""

import json
import os
import shlex
import subprocess
import sys
import tarfile

import pytest
import yaml
from helpers.processes import run_line

from experiments.__main__ import main

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
    """What comes back from the machine, unpacked; the folder of the work; what was printed."""
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "table.yaml").write_text(yaml.safe_dump(TABLE, sort_keys=False))
    cohort = folder / "work/cohorts/tiny_0"
    cohort.parent.mkdir(parents=True)
    cohort.symlink_to(demo / "data")
    variables = {"OUT": folder / "out", "WORK": folder / "work", "PYTHON": sys.executable, "JOBS": 2, "WORKERS": 1}
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COMMIT": "abc1234"}
    environment |= {name: str(value) for name, value in variables.items()}
    words = ["bash", "experiments/gpu.sh", str(folder / "table.yaml")]
    run = subprocess.run(words, cwd=repo_root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    with tarfile.open(folder / "out/records.tar.gz") as archive:
        archive.extractall(folder / "results", filter="data")
    return folder, run.stdout


def test_every_run_leaves_a_record(made, demo):
    folder, _ = made
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
    with tarfile.open(folder / "out/logs.tar.gz") as archive:
        assert len(archive.getnames()) == 4


def test_the_page_is_made_of_the_records_alone(made, repo_root, tmp_path):
    folder, _ = made
    words = ["python", "-m", "experiments.reproduce", "--table", str(folder / "table.yaml"), "--render"]
    run = run_line(shlex.join([*words, "--output", str(folder / "results")]), repo_root)
    assert run.returncode == 0, run.stderr
    page = (folder / "results/table.md").read_text()
    assert page.count("1 of 1") == 5 and "0 of 1" not in page
    assert (folder / "results/table.png").is_file()


def test_nothing_is_made_twice(made, capsys):
    folder, printed = made
    assert printed.count(": begins") == 4
    words = ["--table", str(folder / "table.yaml"), "--output", str(folder / "results")]
    assert main(["reproduce", *words, "--work", str(folder / "elsewhere")]) == 0
    assert capsys.readouterr().out == f"{folder / 'results/table.md'}\n"
