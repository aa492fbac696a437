"""Other libraries' logs, kept down while they say what this project says in a line of its own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from .cli import fault_of


@contextlib.contextmanager
def at_level(level: int, *loggers: str) -> Iterator[None]:
    """Loggers, by their names, say nothing below a level of :mod:`logging`; afterwards they are as they were."""
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
    """A filter of a logger: drops the traceback of an error that the command tells in a line at its end."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or fault_of(error) is None
