"""Measurements of the protocols. The speed itself is not asserted here."""

import pytest

from benchmarks.protocols import against_loop, draws


@pytest.mark.parametrize("name", ["lens3d", "p3d"])
def test_measured_against_a_loop(name):
    """On a quarter of the published sets' sizes."""
    result = against_loop(name, 5_000, 300, 1_000, repeats=1)
    assert result["ratio"] == pytest.approx(result["baseline_seconds"] / result["ours_seconds"])
    assert result["details"]["detections"] == 5_000


def test_the_cost_of_draws_is_measured_in_evaluations():
    result = draws("lens3d", repeats=1)
    assert result["ratio"] > 0 and result["details"]
