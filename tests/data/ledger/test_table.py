"""The ledger: written, edited by hand, read back, checked."""

import numpy as np
import pandas as pd
import pytest
from helpers.ledger_rows import GIVEN, OTHER, row
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.data.ledger.table import (
    LEDGER_STATUSES,
    NEEDED,
    SCHEMA,
    check_ledger,
    read_ledger,
    to_table,
    write_ledger,
)
from lens_d2.io.errors import DataError


@pytest.fixture(params=[".parquet", ".csv"])
def path(request, tmp_path, rows):
    path = tmp_path / f"ledger{request.param}"
    assert write_ledger(path, [to_table(rows[:2]), to_table([]), to_table(rows[2:])]) == len(rows)
    return path


def write(path, table):
    write_ledger(path, [to_table(table)]) if path.suffix == ".parquet" else table.to_csv(path, index=False)


class TestFile:
    def test_what_is_written_is_read(self, path, rows):
        expected = pd.DataFrame(rows, columns=SCHEMA.names)
        pd.testing.assert_frame_equal(read_ledger(path), expected, check_dtype=False)

    def test_an_edited_table_is_read_back(self, path):
        table = read_ledger(path)
        table.loc[2, "status"] = "rejected"
        table.loc[3, "x1"] = 11.25
        table.loc[1, "score"] = np.nan
        write(path, table.drop(index=0))
        again = read_ledger(path)
        assert again["status"].tolist() == ["annotation", "rejected", "annotation", "uncertain", "uncertain"]
        assert again.loc[2, "x1"] == 11.25
        assert np.isnan(again.loc[0, "score"])

    def test_columns_that_a_file_may_lack(self, path, rows):
        table = read_ledger(path)[list(NEEDED)]
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
        pd.testing.assert_frame_equal(
            read_ledger(path), pd.DataFrame(rows, columns=SCHEMA.names), check_dtype=False
        )

    def test_an_empty_ledger(self, tmp_path):
        for name in ("ledger.parquet", "ledger.csv"):
            write_ledger(tmp_path / name, [])
            assert len(read_ledger(tmp_path / name)) == 0

    @settings(max_examples=10, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.floats(0, 400, width=32), st.floats(0.5, 100, width=32), st.floats(0, 1, width=32),
                st.sampled_from(LEDGER_STATUSES), st.text("ab\",' \n/é", min_size=1, max_size=5),
            ),
            max_size=8,
        )
    )  # fmt: skip
    def test_any_rows(self, tmp_path_factory, drawn):
        rows = [
            row(i, f"{text}{i}", x1=x, x2=x + side, score=score, status=status)
            for i, (x, side, score, status, text) in enumerate(drawn)
        ]
        folder = tmp_path_factory.mktemp("any")
        for name in ("ledger.parquet", "ledger.csv"):
            write_ledger(folder / name, [to_table(rows)])
            read = read_ledger(folder / name)
            assert [tuple(r) for r in read.fillna(-1).values.tolist()] == [
                tuple(-1 if isinstance(v, float) and np.isnan(v) else v for v in r) for r in rows
            ]

    def test_writing_that_fails_leaves_the_old_one(self, path):
        def parts():
            yield to_table([row(1)])
            raise RuntimeError("killed")

        before = path.read_bytes()
        with pytest.raises(RuntimeError, match="killed"):
            write_ledger(path, parts())
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


FAULTS = [
    ("x1", "oops", "x1 is 'oops', no number"),
    ("x1", np.nan, "x1 is 'nan', no number"),
    ("y2", np.inf, "y2 is 'inf', no number"),
    ("slice", 4.5, "slice is 4.5, not a whole number"),
    ("slice", 1e300, "slice is 1e+300, not a whole number"),
    ("volume", "", "no volume"),
    ("lesion", "", "no lesion"),
    ("x2", 10.0, "the box 10, 10, 10, 30.5 has no area"),
    ("status", "perhaps", "the status 'perhaps' is none of annotation, uncertain, "),
    ("score", 1.5, "the score is 1.5; it must be in [0, 1]"),
    ("score", -0.1, "the score is -0.1; it must be in [0, 1]"),
    ("precision", 1.5, "the precision is 1.5; it must be in [0, 1]"),
    ("disagreement", "much", "disagreement is 'much', no number"),
    ("id", f"{GIVEN}/0@4", f"the id '{GIVEN}/0@4' stands in an earlier row too"),
    ("slice", 7, f"the lesion '{OTHER}/fused-3' has a box on slice 7 in an earlier row too"),
    ("volume", GIVEN, f"the lesion '{OTHER}/fused-3' is in another sub-volume in an earlier row"),
]


class TestFaults:
    @pytest.mark.parametrize("column, value, message", FAULTS)
    def test_a_contradiction_names_file_and_row(self, tmp_path, rows, column, value, message):
        path = tmp_path / "ledger.csv"
        table = pd.DataFrame(rows, columns=SCHEMA.names).astype(object)
        table.loc[3, column] = value
        table.to_csv(path, index=False, na_rep="nan")
        with pytest.raises(DataError) as error:
            read_ledger(path)
        assert str(error.value).startswith(f"{path}: row 4 (line 5): {message}")

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"volume": "elsewhere"}, "row 1: the sub-volume 'elsewhere' is not in the dataset"),
            ({"slice": 20}, f"row 1: slice 20 of '{GIVEN}', which has 20 slices"),
            ({"slice": -1}, "row 1: slice -1"),
            ({"x2": 100.5}, "row 1: the box 10, 10, 100.5, 30.5 lies outside the image"),
            ({"y1": -0.5}, "lies outside the image"),
            ({"slice": 5}, f"row 1: the lesion '{GIVEN}/0' has a given box on slice 5"),
            ({"lesion": f"{OTHER}/0"}, f"row 1: the lesion '{OTHER}/0' is one of '{OTHER}'"),
            ({"annotation": "nothing"}, "row 1: the dataset has no annotation 'nothing'"),
        ],
    )
    def test_against_the_dataset(self, tmp_path, records, changes, message):
        ledger = pd.DataFrame([row()._replace(**changes), row(6)], columns=SCHEMA.names)
        with pytest.raises(DataError, match=message.replace("(", r"\(")) as error:
            check_ledger(ledger, records, "some.parquet")
        assert str(error.value).startswith("some.parquet: row 1")

    def test_a_sound_one_passes(self, records, rows):
        check_ledger(pd.DataFrame(rows, columns=SCHEMA.names), records, "some.parquet")

    def test_how_many_more(self, tmp_path, rows):
        table = pd.DataFrame(rows, columns=SCHEMA.names).assign(status="odd")
        table.to_csv(tmp_path / "ledger.csv", index=False)
        with pytest.raises(DataError, match="row 1 .*; 5 more such rows"):
            read_ledger(tmp_path / "ledger.csv")

    def test_no_table_at_all(self, tmp_path):
        with pytest.raises(DataError, match="ledger.csv: cannot be read: No such file"):
            read_ledger(tmp_path / "ledger.csv")
        (tmp_path / "ledger.parquet").write_bytes(b"PAR1 or so")
        with pytest.raises(DataError, match="ledger.parquet: not readable as a ledger"):
            read_ledger(tmp_path / "ledger.parquet")
        head = ",".join(SCHEMA.names)
        (tmp_path / "ledger.csv").write_text(f"{head},status\n" + "a," * len(SCHEMA) + "a\n")
        with pytest.raises(DataError, match="ledger.csv: two columns status"):
            read_ledger(tmp_path / "ledger.csv")
        (tmp_path / "ledger.csv").write_text(f"{head}\n" + "a," * len(SCHEMA) + "a\n")
        with pytest.raises(DataError, match="ledger.csv: not a table of comma-separated values"):
            read_ledger(tmp_path / "ledger.csv")
        (tmp_path / "ledger.csv").write_text("id,volume\na,b\n")
        with pytest.raises(DataError, match="ledger.csv: no column slice, x1"):
            read_ledger(tmp_path / "ledger.csv")
        with pytest.raises(DataError, match="with the ending .parquet or .csv"):
            read_ledger(tmp_path / "ledger.xlsx")
