"""The measurement of an archive."""

import pytest

from benchmarks import archive


def test_a_small_archive_is_predicted_in_both_ways(monkeypatch):
    monkeypatch.setattr(archive, "SCANS", 2)
    monkeypatch.setattr(archive, "MATRIX", 64)
    measured = archive.predict_archive()
    details = measured["details"]
    assert details["scans"] == 2 and details["slices_a_scan"] > 5
    assert set(details["seconds_a_scan"]) == {"read", "detect", "write"}
    assert measured["baseline_seconds"] == pytest.approx(sum(details["seconds_a_scan"].values()))
    assert measured["ratio"] > 0
