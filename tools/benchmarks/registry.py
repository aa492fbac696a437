"""What a measurement is, and how long things take."""

from __future__ import annotations

import platform
import re
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

MEASUREMENTS: dict[str, Callable[[], dict]] = {}


def measurement(name: str):
    """Register a function that gives "ratio", "baseline_seconds", "ours_seconds" and "details"."""

    def register(function: Callable[[], dict]):
        MEASUREMENTS[name] = function
        return function

    return register


def compare(baseline_seconds: float, ours_seconds: float, **details) -> dict:
    """A measurement whose ratio is how many times as fast as the baseline ours is."""
    return {
        "ratio": baseline_seconds / ours_seconds,
        "baseline_seconds": baseline_seconds,
        "ours_seconds": ours_seconds,
        "details": details | machine(),
    }


def in_turns(functions: dict[str, Callable[[], object]], repeats: int = 3, warm: bool = True) -> dict[str, float]:
    """Median seconds of each function. They take turns, so that a busy while of the machine is one for all.

    Args:
        warm: run each once before.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + warm):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= warm:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(own) for name, own in times.items()}


def machine() -> dict:
    """Processor, threads and versions."""
    cpus = Path("/proc/cpuinfo")
    models = [line for line in cpus.read_text().splitlines() if "model name" in line] if cpus.exists() else []
    return {
        "cpu": models[0].split(":")[1].strip() if models else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def peak_mb() -> float:
    """The most memory that this process has had. (On Linux ``ru_maxrss`` is at least that of its parent.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
