"""Registry of measurements, and clocks."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
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


def in_turns(
    functions: dict[str, Callable[[], object]],
    repeats: int = 3,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    average: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Seconds of each function. They take turns, so that a busy while of the machine is one for all.

    Args:
        functions: by name.
        repeats: turns that count.
        warm: whether each is run once before.
        clock: of seconds; ``time.process_time`` hardly feels the load of other programs.
        average: of the turns.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + warm):
        for name, function in functions.items():
            start = clock()
            function()
            if turn >= warm:
                times[name].append(clock() - start)
    return {name: average(own) for name, own in times.items()}


def worst_doubling(times: Sequence[float]) -> float:
    """The largest ratio of successive times, each of twice the size of the one before."""
    return max(b / a for a, b in pairwise(times))


def run_alone(function: Callable[[int], dict], size: int) -> dict:
    """Call a function of a module in a process of its own, with one thread: its peak memory is its own."""
    code = "import importlib, json, sys; module, function, size = sys.argv[1:]; "
    code += "print(json.dumps(getattr(importlib.import_module(module), function)(int(size))))"
    command = [sys.executable, "-c", code, function.__module__, function.__name__, str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


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
