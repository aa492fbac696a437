"""Artifacts of a run: files that are complete or absent, and say what they were made from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from detectron2.utils import comm

from .errors import DataError
from .files import write_whole
from .progress import Progress

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# Seconds after which ranks meet and share out anew what is left: a slow rank gets less, and none waits for longer
# than the limit of the process group, however many items there are. (What the first rank does alone in
# ArtifactStore.once has to end within that limit, half an hour for Detectron2's group of gloo.)
SECONDS_BETWEEN_MEETINGS = 300.0


class DamagedArtifact(DataError):
    """An artifact that is not what was written, or was made from something else."""


class ArtifactStore:
    """Folder of artifacts, one file each; what is absent, damaged or outdated is made again.

    A file appears under its name when it is complete, and is verified whenever it is read. A subclass is a file
    format (:meth:`dump`, :meth:`load`); a subclass of that may name its artifacts by the things they are of.
    """

    suffix: str
    digest_key: str  # under which a file has the digest of what it was made from

    def __init__(self, root: str | os.PathLike, made_from: str = "", make: Callable[[Any], Any] | None = None):
        """
        Args:
            root: the folder.
            made_from: :func:`digest` of all that the values depend on; artifacts with another one are outdated.
                Empty: none is kept.
            make: gives the value of a thing; without it, an artifact that cannot be used is an error.
        """
        self.root, self.made_from = Path(root), made_from
        self._make = make

    def name(self, thing: Any) -> str:
        """Name of the artifact of a thing, any text; by default the thing is the name."""
        return thing

    def header(self, thing: Any) -> dict[str, str]:
        """Header of a sound artifact of the thing."""
        return {self.digest_key: self.made_from} if self.made_from else {}

    def dump(self, value: Any, header: dict[str, str]) -> bytes | memoryview:
        """The content of the file."""
        raise NotImplementedError

    def load(self, path: Path) -> tuple[Any, dict[str, str]]:
        """The value in a file, and its header.

        Raises:
            OSError, ValueError, KeyError, ArrowException: the file is damaged.
        """
        raise NotImplementedError

    def path(self, thing: Any) -> Path:
        """Path of the artifact, whether it exists or not."""
        name = self.name(thing)
        safe = re.sub(r"[^\w.-]+", "_", name)
        if safe != name:  # two names must not become one
            safe += "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
        return self.root / f"{safe}{self.suffix}"

    def fault(self, thing: Any) -> str | None:
        """Reason for which an artifact has to be made; None if it is sound."""
        try:
            self._read(thing)
        except FileNotFoundError:
            return "absent"
        except DamagedArtifact as error:
            return error.fault
        return None

    def find(self, thing: Any) -> Any | None:
        """The value of an artifact, or None, with a word in the log, if it is not sound."""
        try:
            return self._read(thing)
        except FileNotFoundError:
            return None
        except DamagedArtifact as damage:
            logger.warning("%s; making it again", damage)
            return None

    def put(self, thing: Any, value: Any) -> None:
        """Write an artifact, which replaces an existing one."""
        write_whole(self.path(thing), self.dump(value, self.header(thing)))

    def write(self, thing: Any) -> None:
        """Make an artifact, whether there is one or not."""
        if self._make is None:
            raise DataError(self.path(thing), "absent or damaged, and nothing here to make it with")
        self.put(thing, self._make(thing))

    def read(self, thing: Any) -> Any:
        """The value of an artifact, made if it is not sound."""
        value = self.find(thing)
        if value is None:
            self.write(thing)
            value = self._read(thing)
        return value

    def forget(self, thing: Any) -> None:
        """Remove an artifact, if there is one."""
        self.path(thing).unlink(missing_ok=True)

    def once(self, thing: Any, work: Callable[[], Any]) -> Any:
        """The value of an artifact, or of ``work`` if that has not been done; all ranks call this.

        Args:
            thing: names the artifact.
            work: done by every rank; the first rank's value is written.

        Returns:
            the first rank's value, on every rank.
        """
        value = comm.all_gather(self.find(thing) if comm.is_main_process() else None)[0]
        if value is not None:
            logger.info("%s: complete", self.path(thing))
            return value
        value = comm.all_gather(work())[0]
        if comm.is_main_process():
            self.put(thing, value)
        comm.synchronize()
        return value

    def complete(self, things: Sequence, title: str) -> None:
        """Make the artifacts of these things that are not sound, every rank its share; all ranks call this."""
        faults = {self.name(thing): self.fault(thing) for thing in _own_share(things)}
        for name, fault in faults.items():
            if fault and fault != "absent":
                logger.warning("%s of %s are made again: %s", title, name, fault)
        wanted = {name for share in comm.all_gather([n for n, f in faults.items() if f]) for name in share}
        missing = [thing for thing in things if self.name(thing) in wanted]
        logger.info("%s: %d of %d are done", title, len(things) - len(missing), len(things))
        share_out(missing, partial(map, self.write), title)
        comm.synchronize()

    def _read(self, thing: Any) -> Any:
        path = self.path(thing)
        if not path.exists():
            raise FileNotFoundError(path)
        try:
            value, header = self.load(path)
            outdated = [key for key, wanted in self.header(thing).items() if header[key] != wanted]
        except (OSError, pa.ArrowException, ValueError, KeyError, RecursionError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DamagedArtifact(path, f"damaged ({reason[:160]})") from None
        if outdated:
            raise DamagedArtifact(path, f"outdated, it has another {outdated[0]}")
        return value


class ResultStore(ArtifactStore):
    """JSON objects by name: results of stages, rounds and trainings."""

    suffix, digest_key = ".json", "made_of"

    def dump(self, value: dict, header: dict[str, str]) -> bytes:
        """The content of the file."""
        return json.dumps({**header, **value}, indent=1).encode()

    def load(self, path: Path) -> tuple[dict, dict[str, str]]:
        """The value in a file, and its header."""
        value = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise ValueError("no JSON object")
        return value, {self.digest_key: value.pop(self.digest_key)} if self.digest_key in value else {}


class TableStore(ArtifactStore):
    """Parquet tables with checksums, one for each of many things.

    A subclass says how a thing is named (:meth:`name`), and how its value becomes a table and back
    (:meth:`encode`, :meth:`decode`).
    """

    suffix, digest_key = ".parquet", "fingerprint"

    def encode(self, value: Any) -> pa.Table:
        """The table of a value."""
        raise NotImplementedError

    def decode(self, table: pa.Table) -> Any:
        """The value of a table; ValueError or KeyError if it has none."""
        raise NotImplementedError

    def header(self, thing: Any) -> dict[str, str]:
        """Name and digest of a sound table."""
        return {"name": self.name(thing), **super().header(thing)}

    def dump(self, value: Any, header: dict[str, str]) -> memoryview:
        """The content of the file."""
        table = self.encode(value)
        header = {**(table.schema.metadata or {}), **header, "rows": str(len(table))}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(header), sink, compression="zstd", write_page_checksum=True)
        return memoryview(sink.getvalue())

    def load(self, path: Path) -> tuple[Any, dict[str, str]]:
        """The value in a file, and its header."""
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        header = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if int(header["rows"]) != len(table):
            raise ValueError(f"{len(table)} of {header['rows']} rows")
        return self.decode(table), header


def digest(things: Iterable) -> str:
    """Hash of what JSON knows; things one by one, so that long lists cost no memory."""
    hashed = hashlib.sha256()
    for thing in things:
        hashed.update(json.dumps(thing, sort_keys=True).encode() + b"\n")
    return hashed.hexdigest()[:16]


def digest_of_file(path: str | os.PathLike) -> str:
    """Hash of a file's content; empty without the file."""
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def share_out(items: Sequence[T], work: Callable[[Iterable[T]], Iterable[R]], title: str) -> list[R]:
    """Do the work on all items, every rank a share; returns when all are done. All ranks have the same items.

    The first rank shows the progress of all.

    Args:
        items: of which each rank gets every n-th, until the ranks meet and share out what is left.
        work: gives the results of items in their order; it may ask for an item before the one before it is done.
        title: of the progress that is shown.

    Returns:
        the result of each item, on every rank.
    """
    done: dict[int, R] = {}
    with Progress(len(items), title) as shown:
        while len(done) < len(items):
            numbers = _own_share([number for number in range(len(items)) if number not in done])
            own: dict[int, R] = {}
            for number, result in zip(numbers, work(_for_a_while(items[n] for n in numbers)), strict=False):
                own[number] = result
                shown.update()
            shares = comm.all_gather(own)
            shown.update(sum(map(len, shares)) - len(own))
            for share in shares:
                done |= share
    return [done[number] for number in range(len(items))]


def by_the_first(work: Callable[[], T]) -> T:
    """Let the first rank do the work, and give its value to every rank; all ranks call this.

    It may last: meanwhile the ranks meet, so that none waits for longer than the limit of the process group.

    Raises:
        Exception: on the first rank, what the work raises; the others wait until their launcher ends them.
    """
    if comm.get_world_size() == 1:
        return work()
    while not comm.is_main_process():
        is_done, value = comm.all_gather(None)[0]
        if is_done:
            return value
    done = threading.Event()
    meetings = threading.Thread(target=_meet_until, args=(done,), daemon=True)
    meetings.start()
    try:
        value = work()
    finally:
        done.set()
        meetings.join()
    return comm.all_gather((True, value))[0][1]


def _meet_until(done: threading.Event) -> None:
    while not done.wait(SECONDS_BETWEEN_MEETINGS):
        comm.all_gather((False, None))


def _for_a_while(items: Iterable[T]) -> Iterator[T]:
    """The first items, until it is time for the ranks to meet; one at least."""
    end = time.monotonic() + SECONDS_BETWEEN_MEETINGS
    for item in items:
        yield item
        if time.monotonic() > end:
            return


def _own_share(items: Sequence[T]) -> Sequence[T]:
    """Every n-th item, for n ranks."""
    return items[comm.get_rank() :: comm.get_world_size()]
