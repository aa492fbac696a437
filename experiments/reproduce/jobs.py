"""The runs of tables as processes side by side: which are to be made, in which order, and what became of them."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lens_d2.evaluation.report import write_json
from lens_d2.io.files import write_whole

from .. import runs
from .records import read_record, record_path
from .tables import Cohort, Run, Table

JOB, RECORD = "job.json", "record.json"  # in a run's folder: what is to be done, and what it has given
LOG = "log.txt"
POLL_S = 0.2


@dataclass(frozen=True)
class Task:
    """A run with its seed and cohort."""

    run: Run
    seed: int
    cohort: Cohort

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.run.id}"

    @property
    def needs(self) -> list[Task]:
        """Tasks that have to be done before."""
        return [Task(run, self.seed, self.cohort) for run in self.run.needs]


@dataclass
class Workshop:
    """The folders and processors that tasks are done with.

    Attributes:
        work: folder of cohorts, checkpoints and predictions.
        output: folder whose ``runs`` gets the records.
        slots: processes at once.
        devices: GPUs; none: the CPU.
        say: takes a line for the user.
    """

    work: Path
    output: Path
    slots: int = 1
    devices: int = 0
    say: Callable[[str], None] = print
    _failed: dict[Task, str] = field(default_factory=dict)
    _log_starts: dict[Task, int] = field(default_factory=dict)  # where a process's part of the log begins

    def folder(self, task: Task) -> Path:
        """The folder that a task works in."""
        cohort = f"{task.cohort.size}_{task.cohort.seed}"
        return self.work / "runs" / cohort / f"{task.run.id}_seed_{task.seed}"

    def data(self, cohort: Cohort) -> Path:
        """The folder of a cohort's datasets."""
        return self.work / "cohorts" / f"{cohort.size}_{cohort.seed}"

    def wanted(self, tables: Sequence[Table], seeds: Sequence[int]) -> list[Task]:
        """The tasks that are to be done: seed by seed, table by table, row by row, each once.

        A task is done if its record is there. It is done again if a task that is to be done needs its files, and
        these are gone; its record stays.
        """
        ordered = dict.fromkeys(
            Task(run, seed, table.cohort) for seed in seeds for table in tables for run in table.runs
        )
        wanted: set[Task] = set()
        for task in reversed(ordered):
            self._take_over(task)
            is_needed = any(task in other.needs for other in wanted) and not self._has_files(task)
            if is_needed or read_record(self.output, task.run, task.cohort, task.seed) is None:
                wanted.add(task)
        return [task for task in ordered if task in wanted]

    def _has_files(self, task: Task) -> bool:
        return (self.folder(task) / RECORD).is_file()

    def _take_over(self, task: Task) -> None:
        """Copy the record of a finished run to where the tables look for it."""
        path = record_path(self.output, task.run, task.cohort, task.seed)
        if self._has_files(task) and not path.is_file():
            write_whole(path, (self.folder(task) / RECORD).read_bytes())

    def make(self, tasks: Sequence[Task], minutes: float = math.inf) -> dict[Task, str]:
        """Do tasks, as many at once as there are slots, each after those that it needs.

        If this process is interrupted, those of the tasks are stopped; the next call goes on where they were.

        Args:
            tasks: in the order in which they are begun.
            minutes: after which those that are not done are stopped.

        Returns:
            the failed tasks with the reason of each.
        """
        end, self._failed = time.monotonic() + 60 * minutes, {}
        waiting, running = list(tasks), dict[Task, tuple[subprocess.Popen, int]]()
        try:
            while waiting or running:
                if time.monotonic() > end:
                    self.say(f"time is up: {len(waiting) + len(running)} runs are left; the same command goes on")
                    break
                for task in self._ready(waiting, running):
                    waiting.remove(task)
                    taken = {slot for _, slot in running.values()}
                    slot = next(number for number in range(self.slots) if number not in taken)
                    running[task] = (self._start(task, slot), slot)
                time.sleep(POLL_S)
                for task in [task for task, (process, _) in running.items() if process.poll() is not None]:
                    self._finish(task, running.pop(task)[0].returncode)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.wait()
        return self._failed

    def _ready(self, waiting: Sequence[Task], running: dict) -> Iterator[Task]:
        """The tasks that can start now; those that need a failed one are given up."""
        free = self.slots - len(running)
        for task in list(waiting):
            lost = [needed for needed in task.needs if needed in self._failed]
            if lost:
                waiting.remove(task)
                self._fail(task, f"needs {lost[0].run.id}, which failed")
            elif free and not any(needed in waiting or needed in running for needed in task.needs):
                free -= 1
                yield task

    def _start(self, task: Task, slot: int) -> subprocess.Popen:
        folder = self.folder(task)
        write_json(folder / JOB, self._job(task))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DETECTRON2_DATASETS": str(self.data(task.cohort))}
        if self.devices:
            allotted = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(self.devices)))
            environment["CUDA_VISIBLE_DEVICES"] = allotted.split(",")[slot % self.devices]
        is_recorded = record_path(self.output, task.run, task.cohort, task.seed).is_file()
        again = " again, as another run needs its files; its record stays" if is_recorded else ""
        self.say(f"{task}: begins{again}, {folder / LOG}")
        command = [sys.executable, "-m", "experiments.reproduce.work", str(folder / JOB), str(os.getpid())]
        with open(folder / LOG, "ab") as log:
            self._log_starts[task] = log.tell()
            return subprocess.Popen(command, cwd=runs.ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def _job(self, task: Task) -> dict:
        """Content of the job's file."""
        folders = {needed.run: str(self.folder(needed)) for needed in task.needs}
        given = {
            key: {
                "folder": folders[of.run],
                "file": of.file,
                "strategies": list(of.strategies),
                "labels": list(of.labels),
                "verdicts": of.verdicts,
                "value": of.value,
            }
            for key, of in task.run.given.items()
        }
        return {
            "run": task.run.describe(),
            "seed": task.seed,
            "device": "cuda" if self.devices else "cpu",
            "given": given,
            "members": [folders[member] for member in task.run.members],
            "facts": {"cohort": self._cohort(task.cohort), "commit": runs.commit()},
        }

    def _cohort(self, cohort: Cohort) -> dict:
        """Size and seed, and what the generator says of itself."""
        return {"size": cohort.size, "seed": cohort.seed, "generator": runs.read_manifest(self.data(cohort))}

    def _finish(self, task: Task, status: int) -> None:
        if status == 0 and self._has_files(task):
            self._take_over(task)
            seconds = json.loads((self.folder(task) / RECORD).read_text())["seconds"]
            self.say(f"{task}: done in {seconds:.0f} s")
            return
        log = self.folder(task) / LOG
        lines = log.read_bytes()[self._log_starts.get(task, 0) :].decode(errors="replace").strip().splitlines()
        self._fail(task, f"ended with status {status} ({lines[-1].strip() if lines else 'no output'}); see {log}")

    def _fail(self, task: Task, reason: str) -> None:
        self._failed[task] = reason
        self.say(f"{task}: {reason}")


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Context in which SIGTERM ends this process as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
