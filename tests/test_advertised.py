"""What README.md and docs/ advertise, as it stands there, on the smallest cohort.

The lines are taken from the documents (tests/helpers/advertised.py says which); what makes them short is added at
their ends. tests/test_docs.py has the table of those that are only parsed.
"""

import csv
import gzip
import json
from pathlib import Path

import pytest
from helpers.advertised import ROOT, RUN, Advertised
from helpers.processes import run_line


@pytest.fixture
def here(demo, tmp_path) -> Path:
    """A working directory as after `make demo`, with the cohort as ``datasets/`` too."""
    for name in ("train_net.py", "configs", "demo", "tools", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("datasets", "docs", "output"):
        (tmp_path / name).mkdir()
    for path in (ROOT / "datasets").glob("*.py"):
        (tmp_path / "datasets" / path.name).symlink_to(path)
    for path in (demo / "data").iterdir():
        (tmp_path / "datasets" / path.name).symlink_to(path)
    (tmp_path / "output/demo").symlink_to(demo)
    return tmp_path


def run(here: Path, advertised: Advertised, **variables: str) -> str:
    """Runs a command to its good end, and returns what it has printed."""
    done = run_line(advertised.line, here, **variables)
    assert done.returncode == 0, f"{advertised.line}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_after_the_demo(demo, here):
    """Its weights are evaluated again, with the same result, and look for lesions in a scan."""
    evaluate, *predictions = RUN["demo"]
    run(here, evaluate)
    name = "phantom_deeplesion_1k_test"
    again = json.loads((here / "output/phantom/lens_multi/inference" / name / "metrics.json").read_text())
    assert again == json.loads((demo / "metrics.json").read_text())["training"]
    scan = next((demo / "data/phantom/LiTS").glob("**/volume-*.nii"))
    (here / "scan.nii.gz").write_bytes(gzip.compress(scan.read_bytes(), 1))
    for predict in predictions:
        assert "detections; look at output/scan/report.html" in run(here, predict)
    assert (here / "output/scan/detections.csv").is_file()


def test_the_model_zoo(demo, here):
    scan = next((demo / "data/phantom/LiTS").glob("**/volume-*.nii"))
    (here / "scan.nii.gz").write_bytes(gzip.compress(scan.read_bytes(), 1))
    shown, predict = RUN["the model zoo"]
    assert "lens_d2://phantom/lens_multi" in run(here, shown)
    run(here, predict)
    assert (here / "output/zoo/report.html").is_file()


def test_real_data(demo, here):
    """The cohort has the files of the real datasets."""
    for advertised in RUN["real data"]:
        run(here, advertised, DETECTRON2_DATASETS=str(demo / "data/phantom"))
    assert (here / "output/lens_multi/inference/luna_val/metrics.json").is_file()
    for name in ("faster", "lens_gate"):
        assert (here / "output" / name / "model_final.pth").is_file()


def test_lens_in_five_steps_and_what_its_ledger_is_for(demo, here):
    scan = next((demo / "data/phantom/LiTS").glob("**/volume-*.nii"))
    (here / "scan.nii.gz").write_bytes(gzip.compress(scan.read_bytes(), 1))
    five_steps, evaluate, predict, another_classifier = RUN["lens_full"]
    run(here, five_steps)
    out = here / "output/phantom/lens_full"
    (metrics,) = (out / "evaluate/inference").glob("*/metrics.json")
    run(here, evaluate)
    again = out / "inference" / metrics.parent.name / metrics.name
    assert again.read_bytes() == metrics.read_bytes()
    run(here, predict)
    assert "False-positive reduction" in (here / "output/scan/detections.json").read_text()
    run(here, another_classifier)
    assert {path.parent.name for path in out.glob("*/stage.json")} == {
        "embedding", "train", "retrain", "fpr", "evaluate",
    }  # fmt: skip
    for path in (out / "train/mining").glob("ledger.*"):
        (here / path.name).write_bytes(path.read_bytes())
    with open(here / "ledger.csv") as file:
        lesion = next(row["lesion"] for row in csv.DictReader(file))
    (here / "ledger_verdicts.json").write_text(json.dumps({"verdicts": {lesion: {"verdict": "accepted"}}}))
    for advertised in RUN["a ledger"]:
        run(here, advertised)
    assert (here / "review.html").is_file() and (here / "output/mining_phantom.md").is_file()
    assert list((here / "output/visualize").rglob("*.png"))


def test_self_training_and_verdicts_of_the_hidden_truth(here):
    for advertised in RUN["lens_best"]:
        run(here, advertised)
    out = here / "output/phantom/lens_best"
    assert (out / "self_training/round_2/mining/ledger.csv").is_file()
    assert (out / "evaluate/stage.json").is_file() and (here / "output/verdicts/informative_2.parquet").is_file()


@pytest.mark.parametrize("subject", ["finer pixels", "few patients"])
def test_trainings_that_were_measured(here, subject):
    """On the hidden truth, and with fixed batch norms."""
    (advertised,) = RUN[subject]
    run(here, advertised)
    assert (here / "output/phantom/lens_multi/model_final.pth").is_file()


def test_the_shipped_weights_on_other_patients(here):
    (advertised,) = RUN["other patients"]
    run(here, advertised)
    assert list(here.glob("output/phantom/lens_best/inference/*/metrics.json"))


def test_harvesting_and_a_training_with_what_was_harvested(here):
    (advertised,) = RUN["harvester"]
    run(here, advertised)
    for advertised in RUN["what was harvested"]:
        run(here, advertised)
    for name in ("harvester", "lens_multi"):
        assert (here / "output/phantom" / name / "retrain/model_final.pth").is_file()


@pytest.mark.parametrize("advertised", RUN["two ranks"], ids=["torchrun"])
def test_two_ranks_train_propose_mine_and_evaluate(demo, here, advertised):
    """On the CPU, with the config's own workers; of torchrun's eight ranks, two."""
    line = advertised.line.replace("--nproc-per-node 8", "--nproc-per-node 2")
    done = run_line(line, here, DETECTRON2_DATASETS=str(demo / "data/phantom"))
    assert done.returncode == 0, done.stderr[-3000:]
    (out,) = (path.parent for path in here.glob("output/*/train/model_final.pth"))
    assert list((out / "mining").glob("ledger*"))
    assert len(list((out / "inference").glob("*luna_val/metrics.json"))) == 1
