"""Progress of long jobs: a bar on a terminal; elsewhere, in logs and pipes, a line now and then."""

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
    """Context manager that counts the finished units of a job. Only the main rank shows anything.

    Off a terminal it says "<title>: 40 of 200, 0.52 s each, 0:01:23 left" at most every ten seconds, and at the
    end how long it took.
    """

    def __init__(self, total: int, title: str, unit: str = "it", nested: bool = False):
        """
        Args:
            total: how many units there are; without any, nothing is shown.
            title: of the job.
            unit: what is counted, for the bar.
            nested: whether the job is part of another that shows its progress: its bar goes when it is done,
                and no line tells of the end.
        """
        self.total, self.title, self.nested = total, title, nested
        self.done = 0
        self.start = self.said = time.monotonic()
        shown = total > 0 and comm.is_main_process()
        options = {"desc": title, "unit": unit, "leave": not nested, "dynamic_ncols": True}
        # Elsewhere there is no bar at all: a disabled one, too, starts a thread, which no fork should meet.
        self.bar = tqdm(total=total, **options) if shown and sys.stderr.isatty() else None
        self.in_lines = shown and self.bar is None

    def update(self, count: int = 1) -> None:
        """Count ``count`` more units as done."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif self.in_lines and time.monotonic() - self.said > SECONDS_BETWEEN_LINES and self.done < self.total:
            self.said = time.monotonic()
            each = (self.said - self.start) / max(self.done, 1)
            left = datetime.timedelta(seconds=int(each * (self.total - self.done)))
            _say(f"{self.title}: {self.done} of {self.total}, {each:.2g} s each, {left} left")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.in_lines and not self.nested:
            _say(f"{self.title}: {self.done} of {self.total}, {time.monotonic() - self.start:.1f} s")


def progress(items: Collection[T], title: str, unit: str = "it", nested: bool = False) -> Iterator[T]:
    """Give the items one by one; each is done when the next is asked for. Arguments as of :class:`Progress`."""
    with Progress(len(items), title, unit, nested) as shown:
        for item in items:
            yield item
            shown.update()


def _say(line: str) -> None:
    """Write to the log, or to the standard error if the program keeps none."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        print(line, file=sys.stderr, flush=True)
