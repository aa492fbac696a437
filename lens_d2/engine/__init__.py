"""Training, on Detectron2's trainer: optimiser, schedule, checkpoints."""

from .checkpoint import LENSCheckpointer
from .solver import build_optimizer, resolve_schedule
from .trainer import LENSTrainer

__all__ = ["LENSCheckpointer", "LENSTrainer", "build_optimizer", "resolve_schedule"]
