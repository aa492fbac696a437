"""RECIST marks of known shapes."""

import numpy as np
import pytest

from lens_d2.phantom.recist import measure


def test_recist_of_an_ellipse():
    y, x = np.mgrid[0:40, 0:40] + 0.5
    turned = np.deg2rad(30)
    u = (x - 20) * np.cos(turned) + (y - 20) * np.sin(turned)
    v = -(x - 20) * np.sin(turned) + (y - 20) * np.cos(turned)
    cover = np.clip(0.5 + (1 - np.hypot(u / 12, v / 6)) * 8, 0, 1).astype(np.float32)
    mark = measure((slice(4, 7), slice(0, 40), slice(0, 40)), np.stack([cover * 0.4, cover, cover * 0.7]))
    assert mark.key_slice == 5
    assert mark.long_px == pytest.approx(24, abs=0.7)
    assert mark.short_px == pytest.approx(12, abs=0.7)
    long_axis, short_axis = mark.ends[1] - mark.ends[0], mark.ends[3] - mark.ends[2]
    assert abs(long_axis @ short_axis) < 0.05 * mark.long_px * mark.short_px
    assert mark.slice_boxes[:, 0].tolist() == [5, 6]
    np.testing.assert_allclose(mark.box3d(2.0)[[2, 5]], [5, 6])
