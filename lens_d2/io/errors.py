"""Errors of bad input and full disks, which every command reports in one line."""

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """A file or a setting that cannot be used, with the reason.

    Args:
        path: the file, the folder or the config key at fault.
        fault: what was found, what is allowed and what to do; no full stop.

    ``str(error)`` is the single line ``"<path>: <fault>"``.
    """

    def __init__(self, path, fault: str):
        self.path = str(path)
        self.fault = " ".join(str(fault).split())
        super().__init__(f"{self.path}: {self.fault}")

    def __reduce__(self):
        return type(self), (self.path, self.fault)


class WriteError(DataError):
    """A file that cannot be written because the disk is full or read-only; no input is at fault."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggestion that ends an error about an unknown name: similar names, or all of them if they are few."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(map(str, known))}" if 0 < len(known) <= 20 else ""


def counted(number: int, thing: str) -> str:
    """A number of things, such as "1 image" or "2 images"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def count_of(number: int, thing: str) -> str:
    """A number of things and its verb, such as "1 image is" or "2 images are"."""
    return f"{counted(number, thing)} {'is' if number == 1 else 'are'}"
