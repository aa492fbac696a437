"""CSV tables are read as text and finite numbers; others are refused by line and column."""

import pytest

from lens_d2.io.errors import DataError
from lens_d2.io.tables import read_rows, read_table


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "a.csv").write_bytes(text.encode("latin1" if text.startswith("\x1f") else "utf-8"))
        return tmp_path / "a.csv"

    return write


def test_text_and_numbers_by_their_columns(table):
    path = table("\ufeff id , x,other\n\n 007 ,1e-3,\n,,\nb,0.1,c\n")
    found = read_table(path, ("id",), ("x",))
    assert found["id"].tolist() == ["007", "b"] and found["x"].tolist() == [0.001, 0.1]
    assert found.index.tolist() == [1, 3]  # lines 3 and 5


def test_rows_have_their_line_and_only_the_columns_that_are_wanted(table):
    path = table('a,b,c\n"1, 2",x,\n,,only this\n3\n')
    assert read_rows(path, ("a", "b")) == [(2, {"a": "1, 2", "b": "x"}), (4, {"a": "3", "b": ""})]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file is empty"),
        ("id,y\na,1\n", "no column x; there are id, y"),
        ("id,x, x\na,1,2\n", "two columns x"),
        ("id,x\na,1,2\n", "not a table of comma-separated values"),
        ("id,x\na,1\nb,high\n", r"line 3 \(b\): x is 'high', not a finite number"),
        ("id,x\na,inf\n", r"line 2 \(a\): x is 'inf'"),
        ("id,x\na,1_0\n", r"line 2 \(a\): x is '1_0', not a finite number"),
        ("id,x\na,-1e308\n", r"line 2 \(a\): x is '-1e308', too large"),
        ("\x1f\x8bid,x\n", "packed by gzip"),
        ("id,x\na\n", r"line 2 \(a\): x is ''"),
        ("id;x\na;0,1\n", "its cells are separated by semicolons: save it with commas"),
    ],
)
def test_other_tables(table, text, fault):
    with pytest.raises(DataError, match=f"a.csv: {fault}"):
        read_table(table(text), ("id",), ("x",))
