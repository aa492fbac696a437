"""Errors of bad input and full disks, which every command reports in one line."""

import difflib
import re
from collections.abc import Callable, Iterable

_BEGIN, _END = "\x02", "\x03"  # around what is private, in the text of a fault
_PRIVATE = re.compile(f"{_BEGIN}([^{_END}]*){_END}")


def private(text: object) -> str:
    """Mark what a fault quotes from files or names of files, as these may name a patient.

    Errors show it without its marks; :meth:`DataError.without_private` shows other text in its place.
    """
    return f"{_BEGIN}{re.sub(f'[{_BEGIN}{_END}]', '', str(text))}{_END}"


def quoted(text: str) -> str:
    """The text between quotation marks, :func:`private`."""
    return private(repr(text))


def replace_private(text: str, replace: Callable[[str], str]) -> str:
    """The text with other text in the place of what is marked as :func:`private`; ``str`` leaves it as it is."""
    return _PRIVATE.sub(lambda match: replace(match[1]), text)


class DataError(ValueError):
    """A file or a setting that cannot be used, with the reason.

    Args:
        path: the file, the folder or the config key at fault.
        fault: what was found, what is allowed and what to do; no full stop. Parts of it may be marked by
            :func:`private`.

    ``str(error)`` is the single line ``"<path>: <fault>"``.
    """

    def __init__(self, path, fault: str):
        self.path = str(path)
        self._marked = " ".join(str(fault).split())
        self.fault = self.without_private(str)
        super().__init__(f"{self.path}: {self.fault}")

    def __reduce__(self):
        return type(self), (self.path, self._marked)

    def without_private(self, replace: Callable[[str], str]) -> str:
        """The fault with its private parts, their white space collapsed, replaced by other text."""
        return replace_private(self._marked, replace)


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
