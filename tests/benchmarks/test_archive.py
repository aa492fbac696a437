"""The measurement of an archive."""

from benchmarks import archive


def test_a_small_archive_is_predicted_in_both_ways(monkeypatch):
    monkeypatch.setattr(archive, "SCANS", 2)
    monkeypatch.setattr(archive, "MATRIX", 64)
    monkeypatch.setattr(archive, "TURNS", 1)
    measured = archive.predict_archive()
    details = measured["details"]
    assert details["scans"] == 2 and details["slices_a_scan"] > 5
    assert set(details["seconds_a_scan"]) == {"read", "detect", "write"}
    assert 0 < sum(details["seconds_a_scan"].values()) <= measured["baseline_seconds"]
    assert measured["ratio"] > 0
