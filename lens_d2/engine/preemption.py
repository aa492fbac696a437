"""The end of a training that is asked to stop, after the step in hand."""

from __future__ import annotations

import logging

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..io import preemption

logger = logging.getLogger(__name__)


class PreemptionHook(HookBase):
    """Saves a checkpoint and ends the training after the step in which a rank was asked to stop.

    Resumed from that checkpoint, the training continues as if it had not been interrupted. Register this hook
    after those whose state a checkpoint holds and before those that take long. A request after the last step,
    during whatever follows the training, ends the run at once. Needs the trainer's ``checkpointer``.
    """

    def before_train(self) -> None:
        """Let requests wait for the end of a step."""
        preemption.wait()

    def after_step(self) -> None:
        """Save and end if any rank was asked to; all ranks agree on the step.

        Raises:
            Preempted: on all ranks, when the checkpoint is complete.
        """
        done = self.trainer.iter + 1
        if done >= self.trainer.max_iter or not on_any_rank(preemption.requested()):
            return
        logger.warning("asked to stop: a checkpoint after %d of %d iterations", done, self.trainer.max_iter)
        self.trainer.checkpointer.save(f"model_{self.trainer.iter:07d}", iteration=self.trainer.iter)
        comm.synchronize()  # a rank that ends takes those along that are still writing
        raise preemption.Preempted

    def after_train(self) -> None:
        """End if a request came with the last step; later ones end the run by themselves.

        Raises:
            Preempted: the training is complete, and what follows it has to wait.
        """
        preemption.wait_no_longer()
        if self.trainer.iter >= self.trainer.max_iter and preemption.requested():
            raise preemption.Preempted


def on_any_rank(flag: bool) -> bool:
    """Whether the flag is true on at least one rank; all ranks call this. One number a rank is exchanged."""
    if comm.get_world_size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    told = torch.tensor(int(flag), device=device)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told)
