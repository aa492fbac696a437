"""Boxes on slices, drawn at random, many of them near each other."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st


@st.composite
def slice_boxes(draw, most=24, slices=5):
    """(n, 6) z, x1, y1, x2, y2, score of at most ``most`` boxes."""
    count = draw(st.integers(0, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corner, side = rng.integers(0, 4, (count, 2)) * 3.0, rng.integers(8, 14, (count, 2))
    z = rng.integers(0, slices, count)
    return np.column_stack([z, corner, corner + side, rng.uniform(0, 1, count)])
