"""How long it takes to stack the boxes of a large volume to 3D proposals."""

from __future__ import annotations

import numpy as np

from lens_d2.mining.harvester.tracker import BoxTracker

from .registry import in_turns, machine, measurement

SLICES, BOXES = (500, 1000, 2000), 200  # boxes on each slice


def boxes_of(slices: int, per_slice: int, seed: int = 0) -> np.ndarray:
    """(n, 6) boxes that wander and grow from slice to slice; one in seven ends there, and another begins."""
    rng = np.random.default_rng(seed)
    center, side = rng.uniform(20, 490, (per_slice, 2)), rng.uniform(8, 60, (per_slice, 2))
    levels = []
    for z in range(slices):
        new = rng.random((per_slice, 1)) < 1 / 7
        center = np.where(new, rng.uniform(20, 490, center.shape), center + rng.normal(0, 0.3, center.shape))
        side = np.where(new, rng.uniform(8, 60, side.shape), side * np.exp(rng.normal(0, 0.02, side.shape)))
        score = rng.uniform(0.1, 1, per_slice)
        levels.append(np.column_stack([np.full(per_slice, z), center - side / 2, center + side / 2, score]))
    return np.concatenate(levels)


@measurement("tracker")
def tracker() -> dict:
    """A volume of 1,000 slices of 200 boxes, and of half and twice as many slices; ratio: the worst doubling."""
    cases = {slices: boxes_of(slices, BOXES) for slices in SLICES}
    timed = in_turns({str(n): lambda n=n, boxes=boxes: BoxTracker()(boxes, n) for n, boxes in cases.items()})
    times = list(timed.values())
    return {
        "ratio": max(b / a for a, b in zip(times, times[1:], strict=False)),
        "baseline_seconds": times[0],
        "ours_seconds": times[1],
        "details": {
            "boxes": [len(boxes) for boxes in cases.values()],
            "seconds": times,
            "ratio": "the worst time at twice the boxes over the time",
        }
        | machine(),
    }
