"""The restricted reader gives what pickle gives for plain data, and runs nothing else."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.io.errors import DataError
from lens_d2.io.pickles import load_pickle, read_pickle

PLAIN = {
    "boxes": np.arange(12.0).reshape(2, 6),
    "columns": np.arange(6, dtype=">f4").reshape(2, 3).T,
    "empty": np.zeros((0, 6)),
    "scalar": [np.float64(1.5), np.int64(-3), np.bool_(True), np.float32(0.1)],
    "words": np.array(["a", "bcd"]),
    "python": [1, -2.5, True, None, "text", b"bytes", b"", (1, (2, 3)), {1, 2}, {"a": []}],
}


def same(first, second) -> bool:
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol(protocol):
    assert same(load_pickle(pickle.dumps(PLAIN, protocol=protocol), "plain.pkl"), PLAIN)


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_both_names_of_numpy_core(core):
    data = pickle.dumps(PLAIN, protocol=2)
    for written in (b"numpy.core", b"numpy._core"):
        data = data.replace(written, core)
    assert same(load_pickle(data, "plain.pkl"), PLAIN)


@pytest.mark.parametrize(
    "name",
    ["3D-Box", "Revised-Train100", "RECIST-Box-Valid", "DeepLesion_manual_1K_test_release"],
)
def test_released_files(shared_dir, name):
    path = shared_dir / "annotations" / "deeplesion" / f"{name}.pkl"
    with open(path, "rb") as file:
        assert same(read_pickle(path), pickle.load(file))


class Runs:
    def __reduce__(self):
        return os.system, ("echo run",)


@pytest.mark.parametrize(
    ("content", "asked_for"),
    [
        (Runs(), "system"),
        (OrderedDict(a=1), "collections.OrderedDict"),
        (np.array([{}, []], dtype=object), "arrays of"),
        (np.zeros(2, dtype=[("a", "f4")]), "arrays of"),
        (np.ma.masked_array([1.0], mask=[True]), "numpy.ma"),
        (eval, "eval"),
        (np.dtype("f4"), "a bare DType"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_anything_else_is_refused_by_name(content, asked_for, protocol, capfd):
    with pytest.raises(DataError) as error:
        load_pickle(pickle.dumps([content], protocol=protocol), "weights.pkl")
    assert str(error.value).startswith("weights.pkl: refused")
    assert asked_for in str(error.value)
    assert capfd.readouterr().out == ""


def test_shared_parts_are_made_once():
    part = []
    for _ in range(60):  # 2 ** 60 lists if every reference were followed
        part = [part, part]
    assert load_pickle(pickle.dumps(part), "nested.pkl")[0][1] is not None


def test_a_huge_memo_index_allocates_nothing():
    with pytest.raises(DataError):
        load_pickle(b"\x80\x02]r\xff\xff\xff\x7f" + b"(K\x01e", "memo.pkl")


def test_missing_and_truncated_files_name_themselves(tmp_path):
    with pytest.raises(DataError, match="absent.pkl: cannot be read"):
        read_pickle(tmp_path / "absent.pkl")
    path = tmp_path / "cut.pkl"
    path.write_bytes(pickle.dumps(PLAIN)[:-20])
    with pytest.raises(DataError, match="cut.pkl: not a readable pickle"):
        read_pickle(path)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), protocol=st.sampled_from([0, 2, 3, 5]))
def test_damaged_pickles_give_an_error_or_data(data, protocol):
    content = bytearray(pickle.dumps(PLAIN, protocol=protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        load_pickle(bytes(content), "damaged.pkl")
    except DataError as error:
        assert error.path == "damaged.pkl"
