"""Colours of detections, by score: yellow where it is low, by way of orange to red where it is high."""

from __future__ import annotations

import numpy as np

SCORES = (0.0, 0.5, 1.0)
COLORS = ((1.0, 0.91, 0.35), (1.0, 0.6, 0.15), (1.0, 0.24, 0.24))  # light enough to stand out from a dark CT


def score_color(score: float) -> tuple[float, float, float]:
    """Red, green and blue, in [0, 1], for a score in [0, 1]."""
    red, green, blue = (float(np.interp(score, SCORES, channel)) for channel in zip(*COLORS, strict=True))
    return red, green, blue


def score_hex(score: float) -> str:
    """The same as ``#rrggbb``."""
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in score_color(score))
