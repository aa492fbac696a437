"""Training of the networks other than the detector: classifiers of detections, the lesion embedding."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer, create_ddp_model, hooks
from detectron2.utils import comm
from torch import nn
from torch.utils.data import Dataset, default_collate

from ..data.loader import SampleLoader
from ..io.checkpoint import LENSCheckpointer
from .preemption import PreemptionHook
from .solver import build_optimizer, build_scheduler, follow_config, with_epochs
from .trainer import CarefulTraining
from .writers import build_writers


def stage_config(cfg: CfgNode, node: CfgNode, name: str) -> CfgNode:
    """Make the config of one network's training: ``node.SOLVER`` replaces keys of SOLVER; the folder is its own.

    These networks are small: batches and lengths are those of the config on any number of ranks. Only a batch that
    the ranks cannot share evenly grows, to the next size that they can.

    Args:
        cfg: of the whole run.
        node: of the network.
        name: of its folder below OUTPUT_DIR.
    """
    stage = cfg.clone()
    stage.defrost()
    for key, value in node.SOLVER.items():
        stage.SOLVER[key] = value
    ranks, batch = comm.get_world_size(), stage.SOLVER.IMS_PER_BATCH
    if batch % ranks:
        stage.SOLVER.IMS_PER_BATCH = -(-batch // ranks) * ranks
        logging.getLogger(__name__).info("%s: a batch of %d for %d ranks", name, stage.SOLVER.IMS_PER_BATCH, ranks)
    stage.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / name)
    stage.freeze()
    return stage


class NetworkTrainer(CarefulTraining, SimpleTrainer):
    """Detectron2's simple trainer with its hooks, for a network and a stream of batches.

    Killed at any moment and resumed, it continues from its last checkpoint with the batches that come next. The
    finished network is ``model_final.pth`` in the output folder.
    """

    keep_batch = "go on with as many ranks as before, or begin its stage anew"

    def __init__(self, cfg: CfgNode, network: nn.Module, objective: nn.Module, dataset: Dataset, batches):
        """
        Args:
            cfg: of :func:`stage_config`.
            network: is trained and saved.
            objective: holds ``network``; called with a collated batch, it gives the losses by name.
            dataset: gives samples for the indices that ``batches`` holds.
            batches: an :class:`EpochBatchSampler`.
        """
        cfg = with_epochs(cfg, batches.epoch_length)
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        device_ids = None if cfg.MODEL.DEVICE == "cpu" else [comm.get_local_rank()]
        optimizer = build_optimizer(cfg, network)
        loader = SampleLoader(
            dataset, batch_sampler=batches, num_workers=cfg.DATALOADER.NUM_WORKERS, collate_fn=default_collate
        )
        super().__init__(
            create_ddp_model(objective, broadcast_buffers=False, device_ids=device_ids), loader, optimizer
        )
        self.checkpointer = LENSCheckpointer(network, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.batches, self.max_iter, self.final = batches, cfg.SOLVER.MAX_ITER, "model_final.pth"
        self.cfg, self.network, self.scheduler = cfg, network, build_scheduler(cfg, optimizer)
        main = comm.is_main_process()
        self.register_hooks(
            [
                hooks.IterationTimer(),
                hooks.LRScheduler(optimizer, self.scheduler),
                hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD) if main else None,
                PreemptionHook(),
                hooks.PeriodicWriter(build_writers(cfg, self.max_iter), period=20) if main else None,
            ]
        )

    def run(self, resume: bool = False, begin: Callable[[], object] = lambda: None) -> str:
        """Train to the end, with ``resume`` from the last checkpoint if there is one.

        Args:
            resume: use the checkpoints of an earlier run.
            begin: called without a checkpoint, to give the network its initial weights.

        Returns:
            file of the finished network.
        """
        start = 0
        if resume and self.checkpointer.has_checkpoint():
            self.checkpointer.load(self.checkpointer.get_checkpoint_file())
            start = self.iter + 1
            if start < self.max_iter:
                follow_config(self.cfg, self.network, self.optimizer, self.scheduler)
        else:
            if not resume:
                self.checkpointer.begin_anew()
            begin()
        self.batches.start_iter = start
        path = os.path.join(self.checkpointer.save_dir, self.final)
        if start < self.max_iter:
            self.train(start, self.max_iter)
        else:  # it may have been killed after its last checkpoint
            self.checkpointer.save("model_final", iteration=self.iter)
        comm.synchronize()
        logging.getLogger(__name__).info("trained: %s", path)
        return path
