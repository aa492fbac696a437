"""The errors that bad input and full disks raise, so that every command can report them the same way."""

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """A file or a setting that cannot be used, and why.

    Args:
        path: the file, the folder or the config key at fault.
        fault: what was found, what is allowed and what to do, without a full stop.

    ``str(error)`` is the single line ``"<path>: <fault>"``.
    """

    def __init__(self, path, fault: str):
        self.path = str(path)
        self.fault = " ".join(str(fault).split())
        super().__init__(f"{self.path}: {self.fault}")

    def __reduce__(self):
        return type(self), (self.path, self.fault)


class WriteError(DataError):
    """A file that cannot be written: the disk is full or read-only. No input is at fault."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What an error about an unknown name ends with: the near ones, or all if there are few."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(map(str, known))}" if 0 < len(known) <= 20 else ""
