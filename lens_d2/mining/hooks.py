"""Mining as hooks of Detectron2's trainer, which run at the end of a training."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from ..data.ledger.verdicts import judged_rows
from ..io.artifacts import digest_of_file
from .calibration import Calibration
from .lens.mine import mine
from .lens.strategies import Strategy, build_strategies
from .proposals import mined_datasets, mined_records, open_shards, propose
from .shards import ShardStore

PROPOSALS, MINING = "proposals", "mining"  # folders below OUTPUT_DIR


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


def checked_strategies(cfg: CfgNode) -> dict[str, Strategy]:
    """The strategies of a config, for :func:`mine_round`, built before what takes hours.

    Raises:
        DataError: nothing can be mined with its settings, or its V_M is absent or unsound.
    """
    mined_datasets(cfg)
    strategies, calibration = build_strategies(cfg), Calibration.from_config(cfg)
    if calibration is not None:
        calibration.verified(mined_records(cfg))
    return strategies


def mine_round(cfg: CfgNode, shards: ShardStore, strategies: dict[str, Strategy], number: int = 1) -> Path:
    """Mine the datasets of a config into ``OUTPUT_DIR/mining``.

    Args:
        cfg: ``MINING`` is read; verdicts in the ledgers of ``MINING.REVIEWED`` hold.
        shards: with the proposals of all sub-volumes.
        strategies: by name, in order.
        number: of the round, from 1.

    Returns:
        path of the ledger.

    Raises:
        DataError: a reviewed ledger is unsound; or no sub-volume of ``MINING.CALIBRATION.DATASET`` is mined.
    """
    records = mined_records(cfg)
    files = [cfg.MODEL.EMBEDDING.WEIGHTS, cfg.MINING.HARVESTED.LEDGER]
    calibration = Calibration.from_config(cfg)
    settings = cfg.MINING.clone()
    settings.defrost()
    settings.ROUNDS = number  # how many follow is nothing to this one
    made_from = [settings.dump(), cfg.MODEL.EMBEDDING.dump(), str(cfg.SEED), *map(digest_of_file, files)]
    if calibration is not None:
        made_from.append(calibration.fingerprint())
    return mine(
        records,
        shards,
        strategies,
        Path(cfg.OUTPUT_DIR) / MINING,
        iou=cfg.MINING.IOU,
        settings="".join(made_from),
        number=number,
        calibration=calibration,
        judged=judged_rows(cfg.MINING.REVIEWED, records),
    )
