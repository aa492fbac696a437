"""What all mining strategies have in common."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from fvcore.common.registry import Registry

from ..findings import Finding, Patient

STRATEGIES = Registry("MINING_STRATEGY")
STRATEGIES.__doc__ = "Classes of strategies, by the names that MINING.STRATEGIES has; built with the config."


class Strategy:
    """Finds missing annotations of one patient after another.

    A subclass is built with the config alone (``from_config`` of Detectron2's ``@configurable``), and has
    :meth:`__call__`. :func:`lens_d2.mining.lens.mine.mine_patient` drops the boxes that lie on known ones, so a
    strategy need not check for that.
    """

    def __call__(self, patient: Patient) -> list[Finding]:
        """The findings in one patient, the most reliable first."""
        raise NotImplementedError

    def learn(self, records: Sequence[dict]) -> dict:
        """Learn from the annotations before any patient is mined; by default nothing. Only the first rank does.

        Args:
            records: of all sub-volumes, with given annotations only.

        Returns:
            what was learnt, as JSON knows it: it is logged, kept beside the ledger, and given to :meth:`use`.
        """
        return {}

    def use(self, learnt: dict) -> None:
        """Take what :meth:`learn` has returned: on every rank, and in every run that resumes this one."""


def build_strategies(cfg: CfgNode) -> dict[str, Strategy]:
    """The strategies that ``MINING.STRATEGIES`` names, by their names, in order.

    Raises:
        KeyError: there is no such strategy.
    """
    return {name: STRATEGIES.get(name)(cfg) for name in cfg.MINING.STRATEGIES}
