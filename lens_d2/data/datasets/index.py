"""An index of results that were computed from files, valid until the files change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...io.artifacts import ResultStore
from ...io.errors import DataError, WriteError
from ...io.parallel import run_all
from .catalog import Faults, import_readers, imported_readers

logger = logging.getLogger(__name__)

SAVE_EVERY = 20  # new results after which the index is saved


@dataclass(frozen=True)
class Job:
    """A computation from files.

    Attributes:
        files: files or folders; the result is valid as long as their names, sizes and times stay the same (of a
            folder: those of the files in it).
        compute: gives the result, as plain data for JSON; picklable. May raise DataError.
    """

    files: tuple[Path, ...]
    compute: Callable[[], dict]


def computed(
    path: Path, version: str, jobs: dict[str, Job], faults: Faults, processes: int = 1
) -> dict[str, dict]:
    """Look up the results of jobs in an index, and compute and add those that it lacks.

    Args:
        path: of the index, a JSON file. If it cannot be written, a warning says so.
        version: of the computation; an index of another version is not used.
        jobs: by name. Results of other jobs stay in the index.
        faults: collects the errors of jobs, by name.
        processes: to compute with.

    Returns:
        the results of jobs without an error, by name.
    """
    index = _Index(path.parent, version)
    stored = index.entries(path.stem)
    results, stamps, missing = {}, {}, {}
    for name, job in jobs.items():
        try:
            stamps[name] = _stamp(job.files)
        except OSError as error:
            faults.add(name, DataError(error.filename, f"cannot be read: {error.strerror}"))
            continue
        if name in stored and stored[name]["stamp"] == stamps[name]:
            results[name] = stored[name]["result"]
        else:
            missing[name] = job.compute
    unsaved = {}
    begin = partial(import_readers, imported_readers())  # jobs may be functions of theirs
    for name, result in run_all(missing, f"index {path.stem}", processes, begin=begin):
        if isinstance(result, DataError):
            faults.add(name, result)
            continue
        results[name] = result
        unsaved[name] = {"stamp": stamps[name], "result": result}
        if len(unsaved) % SAVE_EVERY == 0:
            index.add(path.stem, unsaved)
    if unsaved:
        index.add(path.stem, unsaved)
    return {name: results[name] for name in jobs if name in results}


def _stamp(files: Iterable[Path]) -> list[list]:
    """[[name, bytes, time], ...]; for a folder, its name, the number of its files, their bytes and latest time."""
    stamps = []
    for path in files:
        stat = path.stat()
        if path.is_dir():
            inside = [file.stat() for file in path.iterdir()]
            total, latest = sum(s.st_size for s in inside), max((s.st_mtime_ns for s in inside), default=0)
            stamps.append([path.name, len(inside), total, latest])
        else:
            stamps.append([path.name, stat.st_size, stat.st_mtime_ns])
    return stamps


class _Index(ResultStore):
    digest_key = "version"

    def entries(self, name: str) -> dict[str, dict]:
        """The entries of an index; none if it is absent, of another version or damaged."""
        entries = (self.find(name) or {}).get("entries")
        return entries if isinstance(entries, dict) else {}

    def add(self, name: str, entries: dict[str, dict]) -> None:
        """Add entries to those that the index has by now, which may be another process's work."""
        try:
            self.put(name, {"entries": {**self.entries(name), **entries}})
        except WriteError as error:
            logger.warning(f"{error}; it will be computed again next time")
