"""Mining as hooks of Detectron2's trainer, which run at the end of a training."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from ..data.loader import load_records
from .lens.mine import MiningRound
from .proposals import refuse_shared_names


def build_mining_hooks(cfg: CfgNode) -> list[HookBase]:
    """The hooks that a config asks for: both if it names strategies, otherwise none.

    Raises:
        DataError: as :class:`MiningRound`, or a sub-volume shares its name with one of another training dataset.
    """
    if not cfg.MINING.STRATEGIES:
        return []
    mining = MiningRound(cfg)
    refuse_shared_names(mining.records, load_records(cfg.DATASETS.TRAIN))
    return [ProposalHook(mining), MiningHook(mining)]


class _AfterTraining(HookBase):
    """Does something with the finished model, which is put back to training afterwards."""

    def __init__(self, mining: MiningRound):
        self.mining = mining

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

    Ranks share the work; a resumed run makes only the files that are missing or damaged.
    """

    def run(self, model) -> None:
        """Make the proposals."""
        self.mining.propose(model)


class MiningHook(_AfterTraining):
    """Step 3 of LENS: the strategies of ``MINING.STRATEGIES`` in their order, to ``OUTPUT_DIR/mining``.

    The ledger is ``OUTPUT_DIR/mining/ledger.parquet``, and the same as ``.csv``.
    """

    def run(self, model) -> None:
        """Mine, and write the ledger."""
        self.mining.mine(self.mining.shards(model))
