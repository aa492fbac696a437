"""Many units of work, shared out among the ranks."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from detectron2.utils import comm

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Units that a rank does between two meetings. Ranks meet often enough that none waits for longer than the limit
# of the process group, however many units there are.
UNITS_BETWEEN_MEETINGS = 4
SECONDS_BETWEEN_LINES = 10


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Every n-th item, for n ranks."""
    return items[comm.get_rank() :: comm.get_world_size()]


def gather_list(items: list) -> list:
    """The items of all ranks, on every rank."""
    return [item for share in comm.all_gather(items) for item in share]


def share_out(items: Sequence[T], work: Callable[[T], None], title: str) -> None:
    """Do the work on each item, every rank its share; returns when all are done. All ranks have the same items.

    Progress goes to the log.
    """
    own, start, said = own_share(items), time.monotonic(), time.monotonic()
    rounds = -(-len(items) // (comm.get_world_size() * UNITS_BETWEEN_MEETINGS))
    done = 0
    for number in range(rounds):
        mine = own[number * UNITS_BETWEEN_MEETINGS : (number + 1) * UNITS_BETWEEN_MEETINGS]
        for item in mine:
            work(item)
        done += sum(comm.all_gather(len(mine)))
        if time.monotonic() - said > SECONDS_BETWEEN_LINES or done == len(items):
            said, spent = time.monotonic(), time.monotonic() - start
            left = datetime.timedelta(seconds=int(spent / done * (len(items) - done)))
            logger.info("%s: %d of %d, %.3f s each, %s left", title, done, len(items), spent / done, left)
