"""python -m benchmarks: its lines and its names."""

import json

import pytest

from benchmarks import MEASUREMENTS
from benchmarks.__main__ import main


def test_one_json_line_a_measurement(monkeypatch, capsys):
    parts = {"ratio": 2.0, "baseline_seconds": 2.0, "ours_seconds": 1.0, "details": {}}
    monkeypatch.setitem(MEASUREMENTS, "other", lambda: parts)
    assert main(["--only", "other"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"name": "other", **parts}
    with pytest.raises(SystemExit):
        main(["--only", "absent"])


def test_names(capsys):
    assert main(["--list"]) == 0
    names = set(capsys.readouterr().out.split())
    assert {"luna16", "lens3d", "p3d", "luna16_doubling"} <= names
    assert {
        "volume-inference",
        "end-to-end-inference",
        "convolution-fraction",
        "heads",
        "data-path",
        "train-step",
    } <= names
