"""The region of a finding in words, where densities alone tell it: lung, and its side.

Nothing else is said. The experts know types of lesions, not organs, and a place in the trunk does not tell the
liver from the bowel beside it. A finding is in the lung if most of what surrounds its box on the key slice has the
density of aerated lung, the box itself left aside. Lesions at the pleura, the hilum or the diaphragm mostly fall
short of that: nothing is said of them. The side is named if the slice is not oblique and the box lies clear of the
body's middle on it.
"""

from __future__ import annotations

import numpy as np

from ..visualization.planes import aerated

MIN_LUNG = 0.6  # of the surroundings
MARGIN = 6.0  # mm of the surroundings on each side of the box, at least
MIDDLE = 15.0  # mm on either side of the body's middle, where no side is named
BODY_HU, MIN_BODY = -300.0, 0.05  # of a column's pixels, where the body is


def describe_region(
    hu: np.ndarray, box: np.ndarray, pixel: tuple[float, float], has_sides: bool = True
) -> str | None:
    """Name the region of a box: "right lung", "left lung" or "lung"; None where densities do not tell it.

    Args:
        hu: (H, W) slice of the cache frame.
        box: (4,) XYXY_ABS in it.
        pixel: mm along x and y.
        has_sides: whether low columns are the patient's right; False for oblique slices, where no side is named.
    """
    low, high = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    margin = np.maximum(np.ceil(MARGIN / np.array(pixel)), (high - low) // 2).astype(int)
    (x1, y1), (x2, y2) = (low - margin).clip(0), high + margin
    around = np.zeros(hu.shape, bool)
    around[y1:y2, x1:x2] = True
    around[max(low[1], 0) : high[1], max(low[0], 0) : high[0]] = False
    if not around.any() or aerated(hu[around]).mean() < MIN_LUNG:
        return None
    if not has_sides:
        return "lung"
    columns = np.flatnonzero((hu > BODY_HU).mean(axis=0) > MIN_BODY)
    if not len(columns):
        return None
    offset = ((box[0] + box[2]) / 2 - (columns[0] + columns[-1] + 1) / 2) * pixel[0]
    if abs(offset) < MIDDLE:
        return "lung"
    return "left lung" if offset > 0 else "right lung"
