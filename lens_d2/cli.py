"""What all commands have in common: how they end where their input or their disk is at fault."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lens_d2.errors import DataError

BAD_INPUT = 2


def fault_of(error: BaseException) -> str | None:
    """The line that a person is told where an error is not the program's; None where it is.

    Args:
        error: a :class:`DataError`, or an error of the operating system, which names its file or comes from a
            full disk.
    """
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ConnectionError | TimeoutError):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None


@contextmanager
def bad_input_ends() -> Iterator[None]:
    """Ends the process where the block meets bad input or a full disk: a line on stderr, exit status 2.

    Any other error is a traceback.
    """
    logging.raiseExceptions = False  # a log on a full disk would print a traceback for every line
    try:
        yield
    except (DataError, OSError) as error:
        fault = fault_of(error)
        if fault is None:
            raise
        print(fault, file=sys.stderr)
        sys.exit(BAD_INPUT)
