"""Results are whole JSON without NaN, and tables."""

import json

import pytest

from lens_d2.evaluation.report import froc_table, summary_table, write_entries, write_json

METRICS = {"fps": [0.125, 8.0], "sensitivity": [0.25, 0.5], "average_sensitivity": 0.375}


def test_lists_of_numbers_stand_on_one_line(tmp_path):
    content = {"a": {"fps": [0.125, 8.0]}, "b": [[1, 2], [3, 4]], "c": ["[ text ]"]}
    text = write_json(tmp_path / "new/metrics.json", content).read_text()
    assert json.loads(text) == content and '"fps": [0.125, 8.0]' in text and text.endswith("}\n")


def test_a_number_that_json_does_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "metrics.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [{}, {"a": [[1.5, 2]], 'b "c"': [], "d": {1: [[2.0]]}}])
def test_an_object_written_by_entries_is_the_same(tmp_path, content):
    write_entries(tmp_path / "entries.json", iter(content.items()))
    write_json(tmp_path / "whole.json", content, indent=None)
    assert (tmp_path / "entries.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    with pytest.raises(ValueError):
        write_entries(tmp_path / "other.json", [("a", [1.0]), ("b", [float("inf")])])
    assert not (tmp_path / "other.json").exists()


def test_tables():
    intervals = {"sensitivity_ci": [[0.1, 0.4], [0.3, 0.7]], "average_sensitivity_ci": [0.2, 0.5]}
    lines = froc_table({"fused": METRICS | intervals, "luna": METRICS}).splitlines()
    assert lines[0].split()[-3:] == ["0.125", "8", "average"]
    assert lines[2].split() == ["fused", "0.2500", "0.5000", "0.3750"]
    assert lines[3].split() == ["95%", "interval", "0.100-0.400", "0.300-0.700", "0.200-0.500"]
    found = summary_table(METRICS | {"protocol": "p3d", "recall_at_precision": {"R@80P": 0.5, "mean": 0.25}})
    assert [line.split()[-1] for line in found.splitlines()] == ["0.3750", "p3d", "0.5000", "0.2500"]
