"""Mining's benchmark mines."""

import pytest

from benchmarks.mining import mine_proposals


def test_the_benchmark_mines_what_it_has_made():
    """A patient of four studies, each with three marks: the others' are found again, each on ten slices."""
    result = mine_proposals(8000)
    assert (result["proposals"], result["volumes"], result["given"]) == (8000, 8, 24)
    # In each of 8 sub-volumes: 3 marked lesions on 9 more slices, and the 9 of the other studies on 10.
    assert result["mined"] == pytest.approx(8 * (3 * 9 + 9 * 10), rel=0.05)
    assert result["uncertain"] > 0
    assert result["seconds"] > 0 and result["peak_mb"] > 0
