"""What a run is given of others, and how it is told."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments.reproduce import work
from experiments.runs import timed
from lens_d2.config import load_config
from lens_d2.data.ledger.table import LedgerRow, read_ledger, to_table, write_ledger
from lens_d2.io.errors import DataError
from lens_d2.mining.harvester.pool import HarvestedLesion
from lens_d2.mining.harvester.pool import to_table as pool_table
from lens_d2.mining.harvester.results import LESIONS, NEGATIVES

ROWS = {  # name: volume, strategy, annotation, status
    "v, recovered": ("v", "LesionHarvester", "mark", "annotation"),
    "h, negative": ("h", "Other", "", "hard_negative"),
}


@pytest.fixture
def given(tmp_path, monkeypatch):
    """given(...): the names of the rows that a run gets of a ledger."""
    rows = [
        LedgerRow(name, volume, 1, 1.0, 1.0, 5.0, 5.0, name, strategy, 1, 0.5, float("nan"), annotation, status)
        for name, (volume, strategy, annotation, status) in ROWS.items()
    ]
    write_ledger(tmp_path / "ledger.parquet", [to_table(rows)])
    cfg = SimpleNamespace(HARVEST=SimpleNamespace(NEGATIVE_SLICES=True))
    monkeypatch.setattr(work, "load_config", lambda path: cfg)
    monkeypatch.setattr(work, "load_records", lambda names: [{"volume": "v"}])
    folder = tmp_path / "run"
    folder.mkdir()

    def names(strategies=(), labels=(), verdicts=None, value="{}"):
        of = {"folder": str(tmp_path), "file": "ledger.parquet", "strategies": strategies, "labels": labels}
        of |= {"value": value, "verdicts": verdicts}
        job = {"run": {"kind": "training", "opts": {"SOLVER.STEPS": [1, 2]}}, "seed": 3, "device": "cpu"}
        job |= {"given": {"DATASETS.LEDGER": of}, "members": [], "facts": {}}
        (folder / "job.json").write_text(json.dumps(job))
        words = work.Job.read(folder / "job.json").opts()
        opts = dict(zip(words[::2], words[1::2], strict=True))
        assert (opts["SEED"], opts["SOLVER.STEPS"], opts["OUTPUT_DIR"]) == ("3", "[1, 2]", str(folder))
        return opts["DATASETS.LEDGER"]

    return names


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["verified_recovered"], ["v-mark@2"]),
        (["recovered"], ["h-mark@6"]),  # best on 6; on 2 it is given, on 9 it stands if another label joins that
        (["recovered", "harvested"], ["h-mark@6", "h-mark@9", "h-new@9"]),
        (["negatives", "verified_negatives"], ["v-no@3", "h-no@9"]),
    ],
)
def test_label_sets_of_a_harvest(given, labels, expected, tmp_path, monkeypatch):
    """As HARVEST.LABELS would have them: slices that join for other sets alone have no rows."""

    def lesion(name, boxes, **kw):
        boxes = np.array([[z, 1, 1, 5, 5, score] for z, score in boxes], np.float64)
        return HarvestedLesion(name[0], 1, 0, boxes, 0.9, 0.5, name=name, **kw)

    pool = [
        lesion("v-mark", [(2, 0.9)], annotation="v-mark"),
        lesion("h-mark", [(2, 0.5), (6, 0.9), (9, 0.4)], annotation="h-mark"),
        lesion("h-new", [(9, 0.8), (10, 0.7)]),
    ]
    negatives = [lesion(name, [(z, 0.6)], status="hard_negative") for name, z in (("v-no", 3), ("h-no", 9))]
    for name, lesions in ((LESIONS, pool), (NEGATIVES, negatives)):
        pq.write_table(pool_table(lesions), tmp_path / name)
    verified = [{"volume": "v", "lesions": []}]
    marked = {"volume": "h", "lesions": [{"id": "h-mark", "boxes": [[2, 1, 1, 5, 5]]}]}
    volumes = SimpleNamespace(verified=verified, training=[*verified, marked])
    monkeypatch.setattr(work, "HarvestVolumes", lambda cfg: volumes)
    assert read_ledger(given(labels=labels))["id"].tolist() == expected


def test_strategies_of_a_ledger(given):
    assert read_ledger(given(strategies=["Other"]))["id"].tolist() == ["h, negative"]


def test_verdicts_of_the_hidden_truth(given, monkeypatch):
    asked = []

    def answer(rows, records, truth, order, number):
        asked.append((rows["id"].tolist(), records, truth, order, number))
        return rows.assign(status="accepted"), {}

    monkeypatch.setattr(work, "answered", answer)
    monkeypatch.setattr(work, "mined_datasets", lambda cfg: ("mined",))
    monkeypatch.setattr(work, "root_of", lambda name: f"root of {name}")
    monkeypatch.setattr(work, "HiddenTruth", lambda root: f"truth of {root}")
    judged = read_ledger(given(strategies=["Other"], verdicts=["score", 7]))
    assert judged["status"].tolist() == ["accepted"]
    assert asked == [(["h, negative"], [{"volume": "v"}], "truth of root of mined", "score", 7)]


def test_parts_of_two_ledgers_of_one_name(given, tmp_path):
    given()
    content = json.loads((tmp_path / "run/job.json").read_text())
    for key, strategy in (("DATASETS.LEDGER", "Other"), ("MINING.HARVESTED.LEDGER", "LesionHarvester")):
        of = content["given"]["DATASETS.LEDGER"]
        content["given"][key] = {**of, "strategies": [strategy], "labels": [], "verdicts": None, "value": "{}"}
    (tmp_path / "run/job.json").write_text(json.dumps(content))
    words = work.Job.read(tmp_path / "run/job.json").opts()
    opts = dict(zip(words[::2], words[1::2], strict=True))
    found = [read_ledger(opts[key])["strategy"].tolist() for key in content["given"]]
    assert found == [["Other"], ["LesionHarvester"]]


def test_counts_of_a_run_are_of_the_ledger_that_its_last_training_had(tmp_path):
    keys = {"DATASETS.LEDGER": "", "STAGES": ("train", "retrain"), "OUTPUT_DIR": str(tmp_path)}

    def ledger(**changes):
        opts = [x for item in {**keys, **changes}.items() for x in item]
        return work._ledger(load_config(opts=opts), tmp_path)

    for stage in ("train", "self_training"):
        (tmp_path / stage).mkdir()
        work.RunResults(tmp_path / stage, str(tmp_path)).put(work.MARKER, {"result": {"ledger": stage}})
        assert ledger() == stage
    assert ledger(STAGES=("train",)) == "" and ledger(**{"DATASETS.LEDGER": "given"}) == "given"


def test_a_file_as_it_is_in_a_value_of_its_own(given, tmp_path):
    assert given() == str(tmp_path / "ledger.parquet")
    assert given(value="(('A', '{}'),)") == f"(('A', '{tmp_path / 'ledger.parquet'}'),)"


def test_the_ledger_of_another_method_is_measured_as_a_harvest(tmp_path, monkeypatch):
    job = work.Job({"config": "harvester.yaml", "opts": {}}, 1, "cpu", tmp_path, {}, [], {})
    cfg = SimpleNamespace(HARVEST=SimpleNamespace(OTHER_LEDGERS=(("A", "a.parquet"),)))
    measure = SimpleNamespace(of_ledger=lambda name, rows: ({"labels": name, "mean": rows}, []))
    monkeypatch.setattr(work, "load_config", lambda path, opts: cfg)
    monkeypatch.setattr(work, "read_ledger", {"a.parquet": 0.4}.get)
    monkeypatch.setattr(work, "HarvestVolumes", lambda cfg: SimpleNamespace(measure=measure))
    assert work.KINDS.get("ledger")(job)["harvest"] == [{"labels": "A", "mean": 0.4}]


@pytest.mark.parametrize("stages", [[""], ["train"], ["train", "retrain"], ["train", "retrain", "evaluate"]])
def test_a_study_reads_what_the_newest_detector_has_found(stages, tmp_path):
    with pytest.raises(DataError, match="no detector was evaluated on marks"):
        work._predictions(tmp_path, "marks")
    for stage in stages:
        (tmp_path / stage / "inference/marks").mkdir(parents=True)
        (tmp_path / stage / "inference/marks/predictions.json").write_text(stage)
    assert work._predictions(tmp_path, "marks").read_text() == stages[-1]


def test_seconds_of_all_parts_of_a_run_are_summed(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), timed(tmp_path / "seconds.json"):
            raise KeyboardInterrupt
    (tmp_path / "seconds.json").write_text("40.0")
    with timed(tmp_path / "seconds.json"):
        pass
    assert json.loads((tmp_path / "seconds.json").read_text()) >= 40


def test_a_run_ends_when_the_command_that_began_it_is_killed(repo_root):
    code = "import sys, time; from experiments.reproduce.work import end_with; end_with(int(sys.argv[1])); "
    code += "print('begun', flush=True); time.sleep(60); print('late')"
    words = ["sh", "-c", '"$0" -W ignore -c "$1" $$ & wait', sys.executable, code]
    with subprocess.Popen(words, cwd=repo_root, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout.readline() == "begun\n"
        command.kill()
        assert command.stdout.read() == ""
