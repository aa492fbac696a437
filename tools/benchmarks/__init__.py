"""The measurements of tools/benchmark.py, one in each file; registering is all that importing does."""

from . import (
    data_path,
    end_to_end,
    heads,
    matmul_fraction,
    scale,
    tracker,
    train_step,
    volume_inference,
)
from .registry import MEASUREMENTS, measurement

__all__ = [
    "MEASUREMENTS",
    "data_path",
    "end_to_end",
    "heads",
    "matmul_fraction",
    "measurement",
    "scale",
    "tracker",
    "train_step",
    "volume_inference",
]
