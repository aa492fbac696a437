"""tools/benchmark.py: its lines. The speed itself is measured there, and not asserted here."""

import json

import pytest


@pytest.mark.parametrize("name", ["lens3d", "p3d"])
def test_measured_against_a_loop(load_tool, name):
    """On a quarter of the published sets' sizes."""
    result = load_tool("benchmark").against_loop(name, 5_000, 300, 1_000, repeats=1)
    assert result["ratio"] == pytest.approx(result["baseline_seconds"] / result["ours_seconds"])
    assert result["details"]["detections"] == 5_000


def test_the_cost_of_draws_is_measured_in_evaluations(load_tool):
    result = load_tool("benchmark").draws("lens3d", repeats=1)
    assert result["ratio"] > 0 and result["details"]


def test_one_json_line_a_measurement(load_tool, monkeypatch, capsys):
    benchmark = load_tool("benchmark")
    parts = {"ratio": 2.0, "baseline_seconds": 2.0, "ours_seconds": 1.0, "details": {}}
    monkeypatch.setitem(benchmark.MEASUREMENTS, "other", lambda: parts)
    assert benchmark.main(["--only", "other"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"name": "other", **parts}
    with pytest.raises(SystemExit):
        benchmark.main(["--only", "absent"])


def test_names(load_tool, capsys):
    assert load_tool("benchmark").main(["--list"]) == 0
    names = set(capsys.readouterr().out.split())
    assert {"luna16", "lens3d", "p3d", "luna16_doubling"} <= names
    assert {
        "volume-inference",
        "end-to-end-inference",
        "matmul-fraction",
        "heads",
        "data-path",
        "train-step",
    } <= names
