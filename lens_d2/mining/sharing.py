"""Many units of work, shared out among the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from detectron2.utils import comm

from ..io.progress import Progress

T = TypeVar("T")

# Units that a rank does between two meetings. Ranks meet often enough that none waits for longer than the limit
# of the process group, however many units there are.
UNITS_BETWEEN_MEETINGS = 4


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Every n-th item, for n ranks."""
    return items[comm.get_rank() :: comm.get_world_size()]


def gather_list(items: list) -> list:
    """The items of all ranks, on every rank."""
    return [item for share in comm.all_gather(items) for item in share]


def share_out(items: Sequence[T], work: Callable[[T], None], title: str) -> None:
    """Do the work on each item, every rank its share; returns when all are done. All ranks have the same items.

    The main rank shows the progress of all.
    """
    own = own_share(items)
    rounds = -(-len(items) // (comm.get_world_size() * UNITS_BETWEEN_MEETINGS))
    with Progress(len(items), title) as shown:
        for number in range(rounds):
            mine = own[number * UNITS_BETWEEN_MEETINGS : (number + 1) * UNITS_BETWEEN_MEETINGS]
            for item in mine:
                work(item)
            shown.update(sum(comm.all_gather(len(mine))))
