"""Scores of detections, in [0, 1], and their odds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit

CERTAIN = 1e-6  # scores are clipped to this distance from 0 and 1


def log_odds(scores: ArrayLike, certain: float = CERTAIN) -> np.ndarray:
    """(n,) log odds of (n,) scores, which are taken to be at least ``certain`` from 0 and from 1."""
    return logit(np.clip(np.asarray(scores, dtype=np.float64), certain, 1 - certain))
