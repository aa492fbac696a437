"""The one line with which commands end on a fault; what they leave and how they go on. (As they stand in the
documents: tests/test_advertised.py.)"""

import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from advertised import NETWORK, SHORT, run_line
from blocks import EXPERTS, blocks_cfg, register_blocks
from scan_files import make_affine, write_volume

from lens_d2.config import load_config
from lens_d2.data.files import only_run_in
from lens_d2.data.loader import build_train_loader
from lens_d2.engine import LENSTrainer, checks
from lens_d2.errors import DataError

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


def test_what_loaders_are_handed_pickles(tmp_path):
    """Ranks are spawned, and so are their loaders' workers."""
    register_blocks(tmp_path / "data")
    for combine in ("experts", "pooling", "positive_pooling"):
        loader = build_train_loader(blocks_cfg(tmp_path, "DATASETS.COMBINE", combine))
        dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
        batch = next(iter(loader.batch_sampler))
        assert len(collate([dataset[index] for index in batch])) == len(batch)


# Faults of a call are one line and status 2.

FAULTS = {
    "": "--config-file: not given",
    "--config-file lens_mulit.yaml": "lens_mulit.yaml: no such config file; did you mean lens_multi.yaml",
    f"{SHIPPED} SOLVER.BASE_LRR 1": "SOLVER.BASE_LRR: no config key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR",
    f"{SHIPPED} SOLVER.BASE_LR": "SOLVER.BASE_LR: a config key without a value",
    f"{SHIPPED} SOLVER.MAX_ITER many": "SOLVER.MAX_ITER: the configuration cannot be used: Type mismatch",
    f"{SHIPPED} DATASETS.TRAIN ('phantom_luna_trian',)": "DATASETS.TRAIN: no 'phantom_luna_trian'; did you mean",
    f"{SHIPPED} MODEL.PROPOSAL_GENERATOR.NAME AFB": "MODEL.PROPOSAL_GENERATOR.NAME: no 'AFB'; did you mean AFP",
    f"{SHIPPED} MODEL.FPR.COMBINE meen": "MODEL.FPR.COMBINE: no 'meen'; did you mean mean",
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


def test_a_name_is_looked_up_in_the_projects_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("lens_multi.yaml").MODEL.DENSENET.OUT_CHANNELS == 512
    for name in ("phantom/lens_multi.yaml", "configs/phantom/lens_multi.yaml"):
        assert load_config(name).MODEL.DENSENET.OUT_CHANNELS == 48
    with pytest.raises(DataError, match="no such config file"):
        load_config("../setup.py")


@pytest.mark.parametrize("inherited", [False, True])
def test_a_config_runs_no_code(tmp_path, inherited):
    bad, ran = tmp_path / "bad.yaml", tmp_path / "ran"
    bad.write_text(f'OUTPUT_DIR: !!python/object/apply:os.system ["touch {ran}"]\n')
    given = tmp_path / "mine.yaml" if inherited else bad
    if inherited:
        given.write_text("_BASE_: bad.yaml\n")
    with pytest.raises(DataError, match=r"bad.yaml: .*python/object/apply.* in line 1") as caught:
        load_config(given)
    assert not ran.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "not readable as YAML"),
        ("- 1\n", "cannot be used"),
        ("_BASE_: mine.yaml\n", "leads back to itself"),
        ("_BASE_: absent.yaml\n", "cannot be read"),
        ("SOLVER:\n  BASE_LRR: 1\nVERSION: 2\n", "no config key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR"),
    ],
)
def test_a_damaged_config_is_a_line(tmp_path, text, fault):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(DataError, match=fault) as caught:
        load_config(tmp_path / "mine.yaml")
    assert "\n" not in str(caught.value)


# GPUs that were promised


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7"}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": ""}, False),
        ({"SLURM_GPUS_ON_NODE": "2"}, False),
        ({"TORCHELASTIC_RUN_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1"}, True),
        ({"TORCHELASTIC_RUN_ID": "7", "CUDA_VISIBLE_DEVICES": "-1"}, False),
    ],
)
def test_a_job_with_gpus_does_not_go_on_without(variables, refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in (*checks.GPU_LISTS, *checks.GPU_COUNTS, "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    cfg = load_config("", ["MODEL.DEVICE", "cuda"])
    if refused:
        with pytest.raises(DataError, match="has started a job with GPUs"):
            checks.check_device(cfg)
    else:
        checks.check_device(cfg)
        checks.fall_back_to_cpu(cfg)
        assert cfg.MODEL.DEVICE == "cpu"


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


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_input_in_a_loaders_worker_is_the_same_error(tmp_path, workers):
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path, "DATALOADER.NUM_WORKERS", workers)
    loader = build_train_loader(cfg)
    for path in (tmp_path / "data").rglob("*.nii"):
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"\.nii: "):
        next(iter(loader))


def test_training_goes_on_when_the_originals_are_unmounted(tmp_path):
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path)
    loader = build_train_loader(cfg)
    for record in loader.samples.records:
        loader.samples.mapper.cache.open(record)
    for expert in EXPERTS:
        (tmp_path / "data" / expert).rename(tmp_path / "data" / f"{expert} elsewhere")
    batches = iter(loader)
    assert all(len(next(batches)) for _ in range(6))


def test_a_resolved_record_is_opened_by_its_own_way_of_caching_alone(tmp_path):
    register_blocks(tmp_path / "data")
    fine, coarse = (
        build_train_loader(blocks_cfg(tmp_path, "INPUT.PIXEL_SPACING", spacing)).samples for spacing in (2.0, 4.0)
    )
    record = fine.records[0]
    shapes = [samples.mapper.cache.open(record).shape for samples in (fine, coarse)]
    assert shapes[0][2] > shapes[1][2]


# One run a folder


def test_a_second_run_is_kept_out_while_the_first_lives(tmp_path):
    with only_run_in(tmp_path / "out"):
        with pytest.raises(DataError, match="another run is writing here"), only_run_in(tmp_path / "out"):
            pass
    with only_run_in(tmp_path / "out"):
        pass


def test_a_killed_run_leaves_no_lock(tmp_path):
    code = "import sys, time; from lens_d2.data.files import only_run_in\n"
    code += "with only_run_in(sys.argv[1]): print('in', flush=True); time.sleep(60)"
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"in\n"
    with pytest.raises(DataError, match="another run"), only_run_in(tmp_path):
        pass
    first.kill()
    first.wait()
    time.sleep(0.1)
    with only_run_in(tmp_path):
        pass


# A full disk. A limit on the size of files stands in for it: writing beyond it fails as on a full disk.


WRITE = """
import resource, sys
from lens_d2.data.files import whole_file
from lens_d2.errors import WriteError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with whole_file(sys.argv[1]) as path:
        path.write_bytes(bytes(100_000))
except WriteError as error:
    print(error)
"""


def test_nothing_half_written_on_a_full_disk(tmp_path):
    """In a process of its own: the limit would hold for the log of the tests as well."""
    table = tmp_path / "table.csv"
    table.write_bytes(b"before")
    run = subprocess.run([sys.executable, "-c", WRITE, table], cwd=ROOT, capture_output=True, text=True)
    assert "table.csv: cannot be written: " in run.stdout, run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    assert table.read_bytes() == b"before"


def limited(words: str, size: int, cohort: Path) -> subprocess.CompletedProcess:
    """A command run with a limit on the bytes of a file."""
    body = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
    body += "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", body, str(size), *shlex.split(words)]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(cohort), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


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
import contextlib, io, json, os, resource, runpy, sys
main, output = runpy.run_path("demo/predict.py")["main"], sys.argv[1]
for size in (1_000, 30_000, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    with contextlib.redirect_stderr(io.StringIO()) as told:
        status = main(["--output", output, *sys.argv[2:]])
    left = [os.listdir(folder) if os.path.isdir(folder) else [] for folder in (output, os.environ["TMPDIR"])]
    lines = [line for line in told.getvalue().splitlines() if " torch/" not in line]  # warnings of torch's own
    print("LEFT", json.dumps([status, lines, *left]))
"""


def test_predicting_on_a_full_disk_is_a_line_and_nothing_half_written(tmp_path):
    """Without room for the preprocessed scan; with room for it and none for the report; with room for all."""
    array = np.full((5, 40, 48), -1000, np.int16)
    array[:, 4:36, 4:44] = np.random.default_rng(0).normal(40, 60, (5, 32, 40)).astype(np.int16)
    scan, output = write_volume(tmp_path / "ct.nii.gz", array, make_affine((4, 4, 3))), tmp_path / "out"
    (tmp_path / "tmp").mkdir()
    options = ["--allow-random-weights", "--input", str(scan), *SHIPPED.split(), "--opts", *shlex.split(NETWORK)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp")}
    words = [sys.executable, "-W", "ignore", "-c", PREDICT, str(output), *options]
    run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    cache, report, done = (json.loads(line[5:]) for line in run.stdout.splitlines() if line.startswith("LEFT "))
    (line,) = cache[1]
    assert cache[0] == 2 and re.search(r"scan-\w+\.b2nd: the cache file cannot be written", line)
    assert report[:2] == [2, [f"{output / 'report.html'}: cannot be written: File too large"]]
    assert "detections.csv" in report[2] and not any(name.startswith(".") for name in report[2])
    assert done[:2] == [0, []] and {"report.html", "detections.json", *report[2]} <= set(done[2])
    assert cache[2] == cache[3] == report[3] == done[3] == []  # nothing in the output, nothing in TMPDIR
