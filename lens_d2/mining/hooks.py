"""Mining as hooks of Detectron2's trainer, which run at the end of a training."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from .lens.mine import checked_strategies, mine_round
from .proposals import PROPOSALS, mined_records, open_shards, propose


def build_mining_hooks(cfg: CfgNode) -> list[HookBase]:
    """The hooks that a config asks for: both if it names strategies, otherwise none."""
    return [ProposalHook(cfg), MiningHook(cfg)] if cfg.MINING.STRATEGIES else []


class _AfterTraining(HookBase):
    """Does something with the finished model, which is put back to training afterwards."""

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg

    def after_train(self) -> None:
        if self.trainer.iter < self.trainer.max_iter:
            return  # interrupted by an error
        model = self.trainer.checkpointer.model
        training = model.training
        try:
            self.run(model)
        finally:
            model.train(training)

    def run(self, model) -> None:
        raise NotImplementedError


class ProposalHook(_AfterTraining):
    """Step 2 of LENS: proposals on the training sub-volumes, to ``OUTPUT_DIR/proposals``, one file each.

    Ranks share the work; interrupted and resumed, only what is missing or damaged is made.
    """

    def run(self, model) -> None:
        """Make the proposals."""
        propose(mined_records(self.cfg), open_shards(self.cfg, model, Path(self.cfg.OUTPUT_DIR) / PROPOSALS))


class MiningHook(_AfterTraining):
    """Step 3 of LENS: the strategies of ``MINING.STRATEGIES`` in their order, to ``OUTPUT_DIR/mining``.

    The ledger is ``OUTPUT_DIR/mining/ledger.parquet``, and the same as ``.csv``.
    """

    def before_train(self) -> None:
        """Check settings and V_M, so that a fault shows before the training."""
        self.strategies = checked_strategies(self.cfg)

    def run(self, model) -> None:
        """Mine, and write the ledger."""
        shards = open_shards(self.cfg, model, Path(self.cfg.OUTPUT_DIR) / PROPOSALS)
        mine_round(self.cfg, shards, self.strategies)
