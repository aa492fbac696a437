"""Confidence intervals by resampling volumes, and the paired comparison of two detectors.

A draw takes as many volumes as there are, with replacement. The false positives and lesions of a volume drawn w
times count w times, at the same ranks. So nothing is matched or sorted again: a draw is a few sums over the events
of the original evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .curves import FrocEvents

CHUNK = 1 << 20  # weights looked up at a time: a few megabytes


def draw_weights(num_volumes: int, draws: int, seed: int) -> np.ndarray:
    """(draws, num_volumes) int32 counts of how often each volume is drawn."""
    picks = np.random.default_rng(seed).integers(0, num_volumes, (draws, num_volumes), dtype=np.int32)
    picks += np.arange(draws, dtype=np.int32)[:, None] * num_volumes
    counts = np.bincount(picks.reshape(-1), minlength=draws * num_volumes)
    return counts.reshape(draws, num_volumes).astype(np.int32)


def resampled_sensitivities(
    events: FrocEvents, fps: np.ndarray, weights: np.ndarray, count_side: str = "right"
) -> np.ndarray:
    """Sensitivities of every draw.

    Args:
        events: of the original evaluation.
        fps: (k,) false positives per volume.
        weights: (draws, volumes) from :func:`draw_weights`.
        count_side: as in ``Protocol``. Left of the first false positive the curve is a line from (0, 0).

    Returns:
        (draws, k); NaN for a draw without a lesion.
    """
    hit = events.hit_rank >= 0
    by_rank = np.flatnonzero(hit)[np.argsort(events.hit_rank[hit], kind="stable")]
    hit_rank, hit_volume = events.hit_rank[by_rank], events.lesion_volume[by_rank]
    lesions = weights @ np.bincount(events.lesion_volume, minlength=weights.shape[1])

    budget = np.asarray(fps) * weights.shape[1]
    num_fp = _enough(events, budget, weights)
    curve = _Steps(events.fp_rank[:num_fp], events.fp_volume[:num_fp], hit_rank, hit_volume)

    hits = np.empty((len(weights), len(budget)))
    rows = max(1, int(CHUNK // (len(budget) * np.sqrt(num_fp + len(hit_rank) + 1))))
    for start in range(0, len(weights), rows):
        hits[start : start + rows] = curve.hits(weights[start : start + rows], budget, count_side)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(lesions[:, None] > 0, hits / lesions[:, None], np.nan)


def _enough(events: FrocEvents, budget: np.ndarray, weights: np.ndarray) -> int:
    """Number of first false positives that exceed the largest budget in every draw (whole ranks; or all)."""
    available = len(events.fp_rank)
    wanted = int(1.2 * budget.max()) + 100
    while wanted < available:
        number = int(np.searchsorted(events.fp_rank, events.fp_rank[wanted - 1], "right"))
        used = np.bincount(events.fp_volume[:number], minlength=weights.shape[1])
        if (weights @ used).min() > budget.max():
            return number
        wanted *= 2
    return available


class _Steps:
    """FROC curve as steps of false positives, weighted anew for each draw.

    Args:
        fp_rank, fp_volume: (f,), ranks ascending.
        hit_rank, hit_volume: (h,) of the lesions that are hit at all, ranks ascending.
    """

    def __init__(self, fp_rank, fp_volume, hit_rank, hit_volume):
        self.fp_volume, self.hit_volume = fp_volume, hit_volume
        # Events before and up to the rank at which each false positive enters; after the last, all of them.
        self.fp_before, self.fp_upto = (
            np.append(np.searchsorted(fp_rank, fp_rank, side), len(fp_rank)) for side in ("left", "right")
        )
        self.hit_before, self.hit_upto = (
            np.append(np.searchsorted(hit_rank, fp_rank, side), len(hit_rank)) for side in ("left", "right")
        )
        self.has_ties = bool(np.any(self.hit_before != self.hit_upto))

    def hits(self, weights: np.ndarray, budget: np.ndarray, side: str) -> np.ndarray:
        """(draws, k) weighted lesions hit when the weighted false positives reach (k,) ``budget``."""
        fp, hit = _RunningSums(weights, self.fp_volume), _RunningSums(weights, self.hit_volume)
        step = fp.search(budget, side)  # the false positive that goes beyond the budget
        low = hit.of_first(self.hit_before[step])
        if not self.has_ties:
            return low
        x0, x1 = fp.of_first(self.fp_before[step]), fp.of_first(self.fp_upto[step])
        part = np.where(x1 > x0, (budget - x0) / np.maximum(x1 - x0, 1), 0.0)
        return low + np.clip(part, 0.0, 1.0) * (hit.of_first(self.hit_upto[step]) - low)


class _RunningSums:
    """Sums of the weights of the first 0, 1, 2, ... events, for each of d draws.

    A matrix product gives the sums at the ends of blocks, which are about as many as the events in one; within a
    block they are looked up on demand.
    """

    def __init__(self, weights: np.ndarray, volume: np.ndarray):
        draws, num_volumes = weights.shape
        self.weights, self.length = weights, len(volume)
        self.size = max(1, int(np.sqrt(self.length)))
        num_blocks = -(-self.length // self.size)
        self.volume = np.pad(volume, (0, (num_blocks + 1) * self.size - self.length))
        block = np.arange(self.length) // self.size
        counts = np.bincount(block * num_volumes + volume, minlength=num_blocks * num_volumes)
        exact = np.float32 if self.length * int(weights.max()) < 1 << 24 else np.float64
        products = weights.astype(exact) @ counts.reshape(num_blocks, num_volumes).T.astype(exact)
        self.blocks = np.zeros((draws, num_blocks + 1), dtype=np.int64)
        np.cumsum(products.astype(np.int64), axis=1, out=self.blocks[:, 1:])
        self.row = np.arange(draws)[:, None]

    def _within(self, block: np.ndarray) -> np.ndarray:
        """(d, k, size) weights of the events of blocks (d, k); 0 past the last event."""
        event = block[..., None] * self.size + np.arange(self.size)
        return np.where(event < self.length, self.weights[self.row[..., None], self.volume[event]], 0)

    def of_first(self, count: np.ndarray) -> np.ndarray:
        """(d, k) the sum of the first ``count`` (d, k) events of each draw."""
        block, rest = count // self.size, count % self.size
        taken = np.arange(self.size) < rest[..., None]
        return self.blocks[self.row, block] + (self._within(block) * taken).sum(axis=2)

    def search(self, budget: np.ndarray, side: str) -> np.ndarray:
        """(d, k) number of sums of each draw, over 1, 2, ... events, that stay within (k,) ``budget``.

        With the side "left" they stay below it.
        """
        nearest = np.round(budget)
        is_whole = np.abs(budget - nearest) < 1e-9 * np.maximum(nearest, 1.0)
        most = np.where(is_whole, nearest, np.floor(budget)).astype(np.int64)
        if side == "left":
            most = np.where(is_whole, most - 1, most)
        block = (self.blocks[:, None, 1:] <= most[:, None]).sum(axis=2)
        sums = self.blocks[self.row, block][..., None] + np.cumsum(self._within(block), axis=2)
        return np.minimum(block * self.size + (sums <= most[:, None]).sum(axis=2), self.length)


def interval(values: np.ndarray, fallback: float, confidence: float = 0.95) -> list[float]:
    """[low, high] around the middle ``confidence`` of the finite values; without any, twice the fallback."""
    values = values[np.isfinite(values)]
    if not len(values):
        return [float(fallback)] * 2
    tail = 50.0 * (1.0 - confidence)
    return [float(v) for v in np.percentile(values, [tail, 100.0 - tail])]


def intervals(events: FrocEvents, protocol, draws: int, seed: int) -> dict:
    """95% intervals for metrics.json: ``sensitivity_ci`` in the order of ``fps``, ``average_sensitivity_ci``."""
    weights = draw_weights(events.num_volumes, draws, seed)
    sampled = resampled_sensitivities(events, protocol.fps, weights, protocol.count_side)
    point = protocol.sensitivities(events)
    return {
        "sensitivity_ci": [interval(s, p) for s, p in zip(sampled.T, point, strict=True)],
        "average_sensitivity_ci": interval(sampled.mean(axis=1), point.mean()),
        "bootstrap": {"draws": draws, "seed": seed, "confidence": 0.95, "resampled": "volumes"},
    }


def paired_comparison(
    first: FrocEvents | Sequence[FrocEvents],
    second: FrocEvents | Sequence[FrocEvents],
    protocol,
    draws: int,
    seed: int,
) -> dict:
    """Average sensitivity of the second detector minus the first's, both resampled with the same volumes.

    Args:
        first, second: of one training, or of several, whose average sensitivities are averaged in every draw; all
            of the same volumes in the same order.
        protocol: of the evaluations.
        draws, seed: of the bootstrap.

    Returns:
        dict with "average_sensitivity" of both, "difference", "difference_ci" (95% interval) and the two-sided
        "p_value", twice the share of draws on the far side of zero (the observed one counted among them, at most
        1).
    """
    both = [[events] if isinstance(events, FrocEvents) else list(events) for events in (first, second)]
    weights = draw_weights(both[0][0].num_volumes, draws, seed)
    drawn = [
        np.mean(
            [
                resampled_sensitivities(events, protocol.fps, weights, protocol.count_side).mean(axis=1)
                for events in trainings
            ],
            axis=0,
        )
        for trainings in both
    ]
    averages = [
        float(np.mean([protocol.sensitivities(events).mean() for events in trainings])) for trainings in both
    ]
    difference = averages[1] - averages[0]
    sampled = drawn[1] - drawn[0]
    sampled = sampled[np.isfinite(sampled)]
    beyond = min(np.sum(sampled <= 0), np.sum(sampled >= 0))
    return {
        "average_sensitivity": averages,
        "difference": difference,
        "difference_ci": interval(sampled, difference),
        "p_value": float(min(1.0, 2.0 * (beyond + 1) / (len(sampled) + 1))),
        "bootstrap": {"draws": draws, "seed": seed, "confidence": 0.95, "resampled": "volumes"},
    }
