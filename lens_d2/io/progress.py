"""How far a long job is: a bar on a terminal; elsewhere, in logs and pipes, a line now and then."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from detectron2.utils import comm
from tqdm import tqdm

logger = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts the done units of a job; a context manager. Only the main rank shows anything.

    Off a terminal it says "<title>: 40 of 200, 0.52 s each, 0:01:23 left" at most every ten seconds, and at the
    end how long it took.
    """

    def __init__(self, total: int, title: str, unit: str = "", nested: bool = False):
        """
        Args:
            total: how many units there are; without any, nothing is shown.
            title: of the job. unit: what is counted, for the bar.
            nested: whether the job is a part of another that shows how far it is: its bar goes when it is done,
                and its end is not told.
        """
        self.total, self.title, self.nested = total, title, nested
        self.done = 0
        self.start = self.said = time.monotonic()
        self.shown = total > 0 and comm.is_main_process()
        on_terminal = self.shown and sys.stderr.isatty()
        options = {"desc": title, "unit": unit or "it", "leave": not nested, "dynamic_ncols": True}
        self.bar = tqdm(total=total, **options) if on_terminal else None

    def update(self, count: int = 1) -> None:
        """``count`` more units are done."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif self.shown and time.monotonic() - self.said > SECONDS_BETWEEN_LINES and self.done < self.total:
            self.said = time.monotonic()
            each = (self.said - self.start) / max(self.done, 1)
            left = datetime.timedelta(seconds=int(each * (self.total - self.done)))
            _say(f"{self.title}: {self.done} of {self.total}, {each:.2g} s each, {left} left")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.shown and not self.nested:
            _say(f"{self.title}: {self.done} of {self.total}, {time.monotonic() - self.start:.1f} s")


def progress(items: Collection[T], title: str, unit: str = "", nested: bool = False) -> Iterator[T]:
    """The items one by one; each counts as done when the next is asked for. Arguments as of :class:`Progress`."""
    with Progress(len(items), title, unit, nested) as shown:
        for item in items:
            yield item
            shown.update()


def _say(line: str) -> None:
    """To the log; to the standard error where the program keeps none."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        print(line, file=sys.stderr, flush=True)
