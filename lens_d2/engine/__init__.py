"""Training, on Detectron2's trainer: optimizer, schedule, checkpoints; the stages of a whole run."""

from ..io.checkpoint import LENSCheckpointer
from .harvest import HarvestRound
from .solver import build_optimizer, with_epochs
from .stages import STAGES, Run, run_stages
from .trainer import LENSTrainer

__all__ = [
    "STAGES",
    "HarvestRound",
    "LENSCheckpointer",
    "LENSTrainer",
    "Run",
    "build_optimizer",
    "run_stages",
    "with_epochs",
]
