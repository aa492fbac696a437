"""Requests to end: the signals by which a batch system asks for its machine back, and a user's Ctrl-C.

A run that is asked to stop finishes what would be lost otherwise, a step of a training, and ends with the status
:data:`REQUEUE`, which asks to be started again. A second request ends it at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: a later attempt may succeed
# Seconds in which signals count as one request: a batch system signals every process of a job, and launchers pass
# on to their ranks what they get themselves.
ONE_REQUEST_S = 5.0


class Preempted(SystemExit):
    """The end of a run that was asked to stop, with the status :data:`REQUEUE`."""

    def __init__(self):
        super().__init__(REQUEUE)


@dataclass
class _Request:
    """The request to this process.

    Attributes:
        time: when it came, in seconds of the monotonic clock; None: not yet.
        waits: whether it is left to :func:`requested`; otherwise it ends the process where it is.
    """

    time: float | None = None
    waits: bool = False


_request = _Request()


@contextmanager
def obeyed() -> Iterator[None]:
    """Context in which a request raises :class:`Preempted` at once or, after :func:`wait`, when it is asked about.

    Signals reach the main thread only; in any other thread, the context does nothing.
    """
    _request.time, _request.waits = None, False
    try:
        with _handled(_receive):
            yield
    finally:
        _request.time, _request.waits = None, False


@contextmanager
def passed_on() -> Iterator[None]:
    """Context in which requests go on to the processes that this one has started.

    Raises:
        Preempted: in place of whatever error the processes end with after a request.
    """
    told = []

    def pass_on(number: int, frame) -> None:
        told.append(number)
        children = multiprocessing.active_children()
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, number)
        if not children:
            raise Preempted

    with _handled(pass_on):
        try:
            yield
        except Exception:
            if told:
                raise Preempted from None
            raise


def requested() -> bool:
    """Whether this process was asked to stop."""
    return _request.time is not None


def wait() -> None:
    """Let requests wait until the work in hand is saved: they no longer end the process where it is."""
    _request.waits = True


def wait_no_longer() -> None:
    """Let requests end the process where it is, those after this call."""
    _request.waits = False


def ignore(*_) -> None:
    """Ignore requests in this process, which ends when the one that has started it ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _receive(number: int, frame) -> None:
    now = time.monotonic()
    if _request.time is None:
        _request.time = now
        if not _request.waits:
            raise Preempted
    elif now - _request.time > ONE_REQUEST_S:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


@contextmanager
def _handled(handler: Callable) -> Iterator[None]:
    """Context in which a function handles :data:`SIGNALS`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
