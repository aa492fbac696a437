"""Log odds of scores."""

import numpy as np
import pytest

from lens_d2.structures.scores import log_odds


def test_log_odds_are_finite_and_odd():
    assert log_odds([0.5]).tolist() == [0.0]
    np.testing.assert_allclose(
        log_odds([0.0, 0.1, 0.9, 1.0], 1e-3), [-6.90675, -2.19722, 2.19722, 6.90675], atol=1e-5
    )
    assert log_odds(0.75) == pytest.approx(np.log(3))
