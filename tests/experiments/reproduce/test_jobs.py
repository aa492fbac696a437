"""Runs as processes: what is made, in which order, what goes on, what a failure stops."""

import json
import subprocess
import sys

import pytest

from experiments.reproduce import jobs
from experiments.reproduce.records import record_path
from experiments.reproduce.tables import Cohort, Given, Row, Run, Table

COHORT = Cohort("tiny", 0)
FIRST, SECOND = (Run("training", "configs/phantom/cecn.yaml", {"SOLVER.MAX_ITER": n}) for n in (1, 2))
AFTER = Run("training", "configs/phantom/cecn.yaml", {}, {"MODEL.WEIGHTS": Given(FIRST, "model_final.pth")})
BOTH = Run("ensemble", "configs/phantom/cecn.yaml", {}, {}, (FIRST, SECOND))


def table(*runs):
    rows = tuple(Row(f"row {number}", run, "d") for number, run in enumerate(runs))
    return Table("t", "T", "S", COHORT, {"Average": "average_sensitivity"}, "average_sensitivity", rows)


def record_of(run, seed):
    cohort = {"size": COHORT.size, "seed": COHORT.seed}
    return {"run": run.describe(), "seed": seed, "cohort": cohort, "seconds": 1}


class Recorder(jobs.Workshop):
    """A workshop whose processes do nothing but leave a record, or fail."""

    def __init__(self, folder, fails=(), slots=1, code=""):
        self.lines, self.started, self.fails, self.code = [], [], fails, code
        super().__init__(folder / "work", folder / "out", slots, say=self.lines.append)

    def _start(self, task, slot):
        self.started.append((task.seed, task.run, slot))
        folder = self.folder(task)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / jobs.LOG).write_text("a line\nno weights here\n" if task.run in self.fails else "")
        record = json.dumps(record_of(task.run, task.seed))
        code = f"import sys; {self.code or 'pass'}; "
        if task.run in self.fails:
            code += "sys.exit(2)"
        else:
            code += f"open({str(folder / jobs.RECORD)!r}, 'w').write({record!r})"
        return subprocess.Popen([sys.executable, "-c", code])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(jobs, "POLL_S", 0.01)


def test_seed_by_seed_and_row_by_row_each_run_once(tmp_path):
    shop = Recorder(tmp_path)
    tables = [table(AFTER, SECOND, SECOND), table(FIRST, BOTH)]
    assert shop.make(shop.wanted(tables, [1, 2])) == {}
    order = [FIRST, AFTER, SECOND, BOTH]
    assert [(seed, run) for seed, run, _ in shop.started] == [(seed, run) for seed in (1, 2) for run in order]
    assert shop.wanted(tables, [1, 2]) == []
    assert record_path(tmp_path / "out", BOTH, COHORT, 2).is_file()


def test_a_record_without_files_is_made_again_only_if_another_run_needs_them(tmp_path):
    shop = Recorder(tmp_path)
    for run in (FIRST, SECOND):
        path = record_path(shop.output, run, COHORT, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record_of(run, 1)))
    assert shop.wanted([table(FIRST, SECOND)], [1]) == []
    wanted = shop.wanted([table(SECOND, AFTER)], [1])
    assert [task.run for task in wanted] == [FIRST, AFTER]
    kept = record_path(shop.output, FIRST, COHORT, 1)
    kept.write_text(kept.read_text().replace('"seconds": 1', '"seconds": 5'))
    assert shop.make(wanted) == {}
    assert json.loads(kept.read_text())["seconds"] == 5


def test_a_finished_run_is_taken_over_by_another_output(tmp_path):
    shop = Recorder(tmp_path)
    shop.make(shop.wanted([table(FIRST)], [1]))
    shop.output = tmp_path / "other"
    assert shop.wanted([table(FIRST)], [1]) == []
    assert record_path(tmp_path / "other", FIRST, COHORT, 1).is_file()


def test_a_failure_is_a_line_and_stops_only_what_needs_it(tmp_path):
    shop = Recorder(tmp_path, fails=[FIRST])
    failed = shop.make(shop.wanted([table(AFTER, SECOND)], [1]))
    assert [task.run for task in failed] == [FIRST, AFTER]
    assert [run for _, run, _ in shop.started] == [FIRST, SECOND]
    assert f"ended with status 2 (no weights here); see {tmp_path}" in failed[jobs.Task(FIRST, 1, COHORT)]
    assert failed[jobs.Task(AFTER, 1, COHORT)] == f"needs {FIRST.id}, which failed"


def test_slots_are_shared_and_freed(tmp_path):
    shop = Recorder(tmp_path, slots=2, code="import time; time.sleep(0.2)")
    shop.make(shop.wanted([table(FIRST, SECOND, BOTH)], [1]))
    assert [slot for _, _, slot in shop.started[:2]] == [0, 1] and shop.started[2][1] == BOTH


def test_when_time_is_up_processes_end_and_the_next_call_goes_on(tmp_path):
    shop = Recorder(tmp_path, code="import time; time.sleep(60)")
    assert shop.make(shop.wanted([table(FIRST, SECOND)], [1]), minutes=0.005) == {}
    assert shop.lines[-1] == "time is up: 2 runs are left; the same command goes on"
    assert len(shop.wanted([table(FIRST, SECOND)], [1])) == 2


def test_a_process_is_told_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("COMMIT", "abc1234")
    shop = jobs.Workshop(tmp_path / "work", tmp_path / "out", devices=2, say=print)
    manifest = shop.data(COHORT) / "phantom/phantom.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"layout": 1, "plan": {"train": 5}, "counts": {}}))
    told = []
    monkeypatch.setattr(jobs.subprocess, "Popen", lambda command, **keys: told.append((command, keys)))
    task = jobs.Task(AFTER, 3, COHORT)
    shop._start(task, slot=3)
    (command, keys), job = told[0], json.loads((shop.folder(task) / jobs.JOB).read_text())
    assert command[1:3] == ["-m", "experiments.reproduce.work"]
    assert keys["env"]["CUDA_VISIBLE_DEVICES"] == "1" and keys["env"]["OMP_NUM_THREADS"] == "1"
    assert keys["env"]["DETECTRON2_DATASETS"] == str(shop.data(COHORT))
    assert job["given"]["MODEL.WEIGHTS"]["folder"] == str(shop.folder(jobs.Task(FIRST, 3, COHORT)))
    assert (job["run"], job["seed"], job["device"]) == (AFTER.describe(), 3, "cuda")
    generator = {"layout": 1, "plan": {"train": 5}}
    assert job["facts"] == {"cohort": {"size": "tiny", "seed": 0, "generator": generator}, "commit": "abc1234"}
