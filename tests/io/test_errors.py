"""Errors are one line, survive another process, and suggest names."""

import pickle

from lens_d2.io.errors import DataError, WriteError, did_you_mean


def test_an_error_is_one_line_that_names_its_file():
    error = DataError("a.csv", "line 3:\n  no  number")
    assert str(error) == "a.csv: line 3: no number" and (error.path, error.fault) == ("a.csv", "line 3: no number")
    again = pickle.loads(pickle.dumps(WriteError("b", "full")))
    assert type(again) is WriteError and str(again) == "b: full"


def test_a_name_that_is_nearly_right_is_suggested():
    names = ["deeplesion_train", "deeplesion_test", "luna_train"]
    assert did_you_mean("deeplesion_trian", names).startswith("; did you mean deeplesion_train")
    assert did_you_mean("x", names) == "; there are deeplesion_train, deeplesion_test, luna_train"
    assert did_you_mean("x", map(str, range(10, 40))) == ""
