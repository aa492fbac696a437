"""Parts of a training step: waiting for data, forward, backward, optimizer."""

from __future__ import annotations

import statistics
import tempfile
import time

import torch
from detectron2.utils.events import EventStorage

from lens_d2.data.loader import build_train_loader
from lens_d2.engine import build_optimizer

from .networks import config, network
from .registry import machine, measurement

STEPS, WARM = 40, 10
PARTS = ("data", "forward", "backward", "optimizer")


@measurement("train-step")
def train_step() -> dict:
    """The CPU config on the cohort below DETECTRON2_DATASETS, two workers; ratio: waiting for data in a step."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = config("phantom/lens_multi.yaml", "DATALOADER.NUM_WORKERS", 2, "OUTPUT_DIR", folder)
        times = measure(cfg)
    seconds = {part: statistics.mean(own) for part, own in times.items()}
    step = sum(seconds.values())
    return {
        "ratio": seconds["data"] / step,
        "baseline_seconds": step,
        "ours_seconds": seconds["data"],
        "details": {
            "ratio": "waiting for data over the whole step (baseline_seconds)",
            "seconds": seconds,
            "batch": cfg.SOLVER.IMS_PER_BATCH,
            "steps": STEPS,
        }
        | machine(),
    }


def measure(cfg, steps: int = STEPS, warm: int = WARM) -> dict[str, list[float]]:
    """Seconds of each part of ``steps`` steps, after ``warm`` others."""
    model = network(cfg).requires_grad_(True).train()
    optimizer, batches = build_optimizer(cfg, model), iter(build_train_loader(cfg))
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    with EventStorage():
        for step in range(warm + steps):
            marks = [time.perf_counter()]
            batch = next(batches)
            marks.append(time.perf_counter())
            loss = sum(model(batch).values())
            marks.append(time.perf_counter())
            optimizer.zero_grad()
            loss.backward()
            marks.append(time.perf_counter())
            optimizer.step()
            marks.append(time.perf_counter())
            if not torch.isfinite(loss):
                raise FloatingPointError("the loss is not finite")
            if step >= warm:
                for part, begin, end in zip(PARTS, marks, marks[1:], strict=False):
                    times[part].append(end - begin)
    return times
