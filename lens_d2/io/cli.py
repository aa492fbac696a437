"""Behaviour shared by all commands: one line instead of a traceback for bad input or a full disk, quiet logs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .errors import DataError, WriteError

BAD_INPUT = 2
# Loggers of libraries that tell users about the libraries' own code.
TALKATIVE = ("torch.fx._symbolic_trace", "torch.utils.cpp_extension", "detectron2.data.common")


def fault_of(error: BaseException) -> str | None:
    """Message for an error that is not the program's own; None for one that is.

    Args:
        error: a :class:`DataError`, or an error of the operating system that names its file or comes from a full
            disk.
    """
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ConnectionError | TimeoutError):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None


def run(body: Callable[[], int | None]) -> int:
    """Call the body of a command.

    Bad input and a full disk become a line on stderr and the status 2; any other error keeps its traceback.

    Returns:
        the exit status: the body's own, or 0 if it gives none.
    """
    logging.raiseExceptions = False  # a log on a full disk would print a traceback for every line
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        status = body() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as `| head` leaves it; what Python flushes at exit goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (DataError, OSError) as error:
        fault = fault_of(error)
        if fault is None:
            raise
        print(fault, file=sys.stderr)
        if not isinstance(error, DataError) or isinstance(error, WriteError):
            _close_logs()
        return BAD_INPUT


def _close_logs() -> None:
    """Close log files now: at exit Python would print a traceback for each that a full disk does not take."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for handler in (handler for logger in loggers for handler in getattr(logger, "handlers", ())):
        stream = getattr(handler, "stream", None)
        if stream is not None and os.path.isfile(str(getattr(stream, "name", ""))):
            with suppress(OSError):
                stream.close()


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Context in which the package's warnings are lines on the standard error, without time and place."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("lens_d2")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def at_level(level: int, *loggers: str) -> Iterator[None]:
    """Context in which loggers, given by name, say nothing below a level of :mod:`logging`."""
    named = [logging.getLogger(name) for name in loggers]
    before = [logger.level for logger in named]
    try:
        for logger in named:
            logger.setLevel(level)
        yield
    finally:
        for logger, old in zip(named, before, strict=True):
            logger.setLevel(old)


def without_known_faults(record: logging.LogRecord) -> bool:
    """Log filter that drops the traceback of an error that the command reports in one line at its end."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or fault_of(error) is None
