"""Random cases for the protocols, full of ties and boundary hits."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from lens_d2.evaluation.sets import BoxTruth

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=60, deadline=None)


def boxes(rng, number):
    low = rng.integers(0, 10, (number, 3))
    return np.hstack([low, low + rng.integers(0, 6, (number, 3))]).astype(float)


def volumes(rng):
    return int(rng.choice([1, 2, 4, 8, 16, 40]))


def scores(rng, number):
    """Of two, five, or as good as no equal values."""
    return rng.integers(0, rng.choice([2, 5, 10**6]), number) / 10**6


def truth_of(rng, num_volumes, flat=False):
    number = int(rng.integers(1, 4 * num_volumes))
    rows = boxes(rng, number)
    if flat:
        rows[:, 5] = rows[:, 2]
    volume = np.sort(rng.integers(0, num_volumes, number))
    return BoxTruth([f"v{v}" for v in range(num_volumes)], volume, rows)
