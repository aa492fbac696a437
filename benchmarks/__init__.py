"""Measurements of speed and memory, by name; ``python -m benchmarks`` takes them.

To add one, write a function under ``@measurement("name")`` in a module that is imported here. It returns "ratio",
"baseline_seconds", "ours_seconds" and "details"; times are averages of several turns.
"""

from . import archive, data_path, heads, inference, mining, protocols, records, train_step, trunk
from .registry import MEASUREMENTS, measurement

__all__ = [
    "MEASUREMENTS",
    "archive",
    "data_path",
    "heads",
    "inference",
    "measurement",
    "mining",
    "protocols",
    "records",
    "train_step",
    "trunk",
]
