"""The same work on many files: on one or more processes, with progress; or with the next one read meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import TypeVar

from .errors import DataError
from .progress import Progress

T = TypeVar("T")
R = TypeVar("R")


def run_all(
    jobs: Mapping[str, Callable[[], T]],
    title: str,
    processes: int = 1,
    start: str = "spawn",
    begin: Callable[[], object] | None = None,
) -> Iterator[tuple[str, T | DataError]]:
    """Call every job and yield ``(its key, what it returned or the DataError it raised)`` as they finish.

    Args:
        jobs: calls without arguments; picklable if there is more than one process.
        title: of the progress that is shown.
        processes: how many to use; 1 works in this one.
        start: "spawn", or "fork" where nothing has used SimpleITK's or torch's threads yet, which do not survive
            a fork: forked processes start at once, spawned ones import everything anew.
        begin: called in each process before its jobs; picklable.

    Raises:
        DataError: a process was killed, or a job cannot be sent to one.
    """
    with Progress(len(jobs), title) as shown:
        for key, result in _run(jobs, title, processes, start, begin):
            shown.update()
            yield key, result


def _run(
    jobs: Mapping[str, Callable[[], T]],
    title: str,
    processes: int,
    start: str,
    begin: Callable[[], object] | None,
) -> Iterator[tuple[str, T | DataError]]:
    if processes <= 1 or len(jobs) <= 1:
        for key, job in jobs.items():
            yield key, _result(job)
        return
    if start != "fork":
        _refuse_unsendable(jobs)
    context = multiprocessing.get_context(start)
    first = partial(_end_with_parent, begin)
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context, initializer=first) as pool:
        futures = {pool.submit(_result, job): key for key, job in jobs.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            fault = "one of its processes was killed, as happens when memory runs out: use fewer of them"
            raise DataError(title, fault) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent(begin: Callable[[], object] | None) -> None:
    """Let this process of a pool end when its parent is killed, instead of waiting for jobs for ever."""

    def watch() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if begin is not None:
        begin()


def _refuse_unsendable(jobs: Mapping[str, Callable[[], T]]) -> None:
    """Refuse jobs that cannot be sent to another process; the pool would wait for them for ever."""
    for key, job in jobs.items():
        try:
            pickle.dumps(job)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            fault = f"cannot be sent to another process ({error}): use a function at the top level of its file"
            raise DataError(key, f"{fault}, or one process") from None


def _result(job: Callable[[], T]) -> T | DataError:
    try:
        return job()
    except DataError as error:
        return error


def read_ahead(items: Iterable[T], read: Callable[[T], R]) -> Iterator[tuple[T, Callable[[], R]]]:
    """Yield each item with a function that gives what ``read`` makes of it, once.

    A thread reads the next item while the caller works on this one: two results are in memory at most. An item
    that fails while another is in memory is read again alone, so that running out of memory is not blamed on the
    file; the error of that attempt is raised.

    Args:
        items: are asked for one by one, each when the one before it is taken.
        read: called in the thread.
    """
    items = iter(items)
    coming: list[tuple[T, Future]] = []
    with ThreadPoolExecutor(1) as thread:

        def begin() -> None:
            coming.extend((item, thread.submit(read, item)) for item in islice(items, 1))

        def take(item: T, future: Future) -> R:
            try:
                result = future.result()
            except Exception:
                result = read(item)
            begin()
            return result

        begin()
        while coming:
            item, future = coming.pop()
            yield item, partial(take, item, future)
            if not coming:  # it was not taken, or could not be read
                begin()
