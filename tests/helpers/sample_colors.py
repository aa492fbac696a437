"""Boxes of a kind in a picture of samples, told by their colour."""

import numpy as np

from lens_d2.visualization.samples import STYLES


def has_color(image: np.ndarray, name: str) -> bool:
    """Whether a box of a kind is in a picture (rows, columns, BGR), apart from the legend at its foot."""
    red, green, blue = (int(STYLES[name].color[i : i + 2], 16) for i in (1, 3, 5))
    body = image[: -image.shape[0] // 8].astype(int)
    return bool((np.abs(body - [blue, green, red]).max(axis=2) < 24).sum() > 20)
