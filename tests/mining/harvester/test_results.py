"""Files that a round leaves; tests/engine/test_harvest.py has those of a whole run."""

import json
from unittest import mock

import pytest

from lens_d2.io.errors import DataError
from lens_d2.mining.harvester.results import COLUMNS, MEASURES, read_lesions, read_pool, write_table


def test_a_damaged_file_of_lesions_is_named(tmp_path):
    path = tmp_path / "lesions.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="lesions.parquet: not readable"):
        read_lesions(str(path))


def test_the_pool_before_the_first_round_is_empty():
    assert read_pool([]) == []


def test_table_1_of_several_rounds(tmp_path):
    """Columns of the paper's table; a cell that a row has not is empty."""
    row = {"round": 1, "labels": "P_H,1..2^+", "mean": 0.5} | {f"R@{p}P": p / 100 for p in (80, 85, 90, 95)}
    curves = {name: [[0.0, 1.0], [1.0, 0.5]] for name in ("s_g", "s_c", "s", "harvested")}
    (tmp_path / MEASURES).write_text(json.dumps({"rows": [row], "curves": curves}))
    measure = mock.Mock(given=lambda: {"round": 0, "labels": "R_H", "R@100P": 0.25})
    write_table(tmp_path, measure, [tmp_path])
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines == [",".join(COLUMNS), "0,R_H,,,,,,0.25", '1,"P_H,1..2^+",0.8,0.85,0.9,0.95,0.5,']
    assert json.loads((tmp_path / "table.json").read_text())[1] == row
    assert (tmp_path / "curves.png").stat().st_size > 10_000
