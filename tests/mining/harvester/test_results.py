"""Files that a round leaves; tests/engine/test_harvest.py has those of a whole run."""

import json
from unittest import mock

import pytest

from lens_d2.data.ledger.table import to_table, write_ledger
from lens_d2.io.errors import DataError
from lens_d2.mining.harvester import results
from lens_d2.mining.harvester.results import COLUMNS, MEASURES, read_lesions, read_pool, write_table


def test_a_damaged_file_of_lesions_is_named(tmp_path):
    path = tmp_path / "lesions.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="lesions.parquet: not readable"):
        read_lesions(str(path))


def test_the_pool_before_the_first_round_is_empty():
    assert read_pool([]) == []


def test_tables_of_several_rounds(tmp_path):
    """Columns of the paper's tables; a cell that a row has not is empty. Another method stands after the marks."""
    row = {"round": 1, "labels": "P_H,1..2^+", "mean": 0.5} | {f"R@{p}P": p / 100 for p in (80, 85, 90, 95)}
    curves = {name: [[0.0, 1.0], [1.0, 0.5]] for name in ("s_g", "s_c", "s", "harvested")}
    generator = {"round": 1, "0.125": 0.25, "8": 0.75, "AP": 0.5}
    (tmp_path / MEASURES).write_text(json.dumps({"rows": [row], "curves": curves, "generator": generator}))
    other = {**row, "round": 0, "labels": "MGTM-SLLP"}
    measure = mock.Mock(given=lambda: {"round": 0, "labels": "R_H", "R@100P": 0.25})
    measure.of_ledger = lambda name, ledger: ({**other, "labels": name}, curves["s"])
    write_ledger(tmp_path / "mgtm.csv", [to_table([])])
    with mock.patch.object(results, "plot_harvest", wraps=results.plot_harvest) as plot:
        write_table(tmp_path, measure, [tmp_path], [("MGTM-SLLP", str(tmp_path / "mgtm.csv"))])
    lines = (tmp_path / "table.csv").read_text().splitlines()
    figures = "0.8,0.85,0.9,0.95,0.5,"
    assert lines == [
        ",".join(COLUMNS), "0,R_H,,,,,,0.25", f"0,MGTM-SLLP,{figures}", f'1,"P_H,1..2^+",{figures}'
    ]  # fmt: skip
    assert json.loads((tmp_path / "table.json").read_text())[2] == row
    assert (tmp_path / "generators.csv").read_text().splitlines() == ["round,0.125,8,AP", "1,0.25,0.75,0.5"]
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert list(plot.call_args[0][1]["Round by round"]) == ["MGTM-SLLP", "P_H,1", "P_H,1..2^+"]
