"""What all mining strategies have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from detectron2.config import CfgNode
from fvcore.common.registry import Registry

from ..findings import Finding, Patient

STRATEGIES = Registry("MINING_STRATEGY")
STRATEGIES.__doc__ = "Classes of strategies, by the names that MINING.STRATEGIES has; built with the config."


class Strategy:
    """Finds missing annotations of one patient after another.

    A subclass is built with the config alone (``from_config`` of Detectron2's ``@configurable``), and has
    :meth:`__call__`. What it gives back is filtered by :func:`lens_d2.mining.mine.mine_patient`: a box that lies
    on a known one is left out, so a strategy need not look after that.
    """

    def __call__(self, patient: Patient) -> list[Finding]:
        """The findings in one patient, the most reliable first."""
        raise NotImplementedError

    def calibrate(self, sample: Callable[[int], Iterable[Patient]], gather: Callable[[object], list]) -> dict:
        """Learn from annotated patients before any is mined; by default nothing.

        Args:
            sample: ``sample(n)`` gives this rank's share of at most n patients, spread over all of them.
            gather: gives the objects of all ranks for the one of this rank.

        Returns:
            what was learnt, as JSON knows it and the same on all ranks: it is logged, kept beside the ledger,
            and given to :meth:`use`.
        """
        return {}

    def use(self, learnt: dict) -> None:
        """Take what :meth:`calibrate` has returned, now or in the run that this one resumes."""


def build_strategies(cfg: CfgNode) -> dict[str, Strategy]:
    """The strategies that ``MINING.STRATEGIES`` names, by their names, in order.

    Raises:
        KeyError: there is no such strategy.
    """
    return {name: STRATEGIES.get(name)(cfg) for name in cfg.MINING.STRATEGIES}
