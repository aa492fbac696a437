"""Artifacts: what is written is read; what is short, damaged or made from something else is made again."""

import errno
import queue
import threading
import time

import pyarrow as pa
import pytest
from detectron2.utils import comm

from lens_d2.io import artifacts
from lens_d2.io.artifacts import ResultStore, TableStore, by_the_first, digest, digest_of_file, share_out
from lens_d2.io.errors import DataError, WriteError


class Numbers(TableStore):
    """Lists of numbers by name."""

    def encode(self, value):
        return pa.table({"number": value})

    def decode(self, table):
        return table["number"].to_pylist()


def results(root, made_from="model", made=None):
    return store_of(ResultStore, {"number": 3}, root, made_from, made)


def tables(root, made_from="model", made=None):
    return store_of(Numbers, list(range(100)), root, made_from, made)


def store_of(kind, value, root, made_from, made):
    def make(name):
        if made is not None:
            made.append(name)
        return value

    return kind(root, made_from, make)


both = pytest.mark.parametrize("store", [results, tables])


@both
def test_a_sound_artifact_is_not_made_again(tmp_path, store):
    made = []
    first, second = (store(tmp_path, made=made).read("a") for _ in range(2))
    assert first == second == store(tmp_path).find("a") and made == ["a"]
    assert store(tmp_path).fault("a") is None and store(tmp_path).fault("b") == "absent"
    assert store(tmp_path).find("b") is None


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    return data[:40] + bytes([data[40] ^ 255]) + data[41:]


@both
@pytest.mark.parametrize("damage", [cut, flip, lambda data: b"", lambda data: b"[1]"])
def test_a_damaged_artifact_is_named_and_made_again(tmp_path, store, damage, caplog):
    if (store, damage) == (results, flip):
        pytest.skip("JSON has no checksum")
    made = []
    first = store(tmp_path, made=made).read("a")
    path = store(tmp_path).path("a")
    path.write_bytes(damage(path.read_bytes()))
    assert "damaged" in store(tmp_path).fault("a")
    with caplog.at_level("WARNING"):
        assert store(tmp_path, made=made).read("a") == first
    assert str(path) in caplog.text and made == ["a"] * 2


@both
def test_one_made_from_something_else_is_not_trusted(tmp_path, store):
    made = []
    store(tmp_path, "one", made).read("a")
    store(tmp_path, "two", made).read("a")
    assert made == ["a"] * 2
    assert store(tmp_path, "one").fault("a") == f"outdated, it has another {store(tmp_path).digest_key}"
    assert store(tmp_path, "").fault("a") is None


def test_a_table_under_another_name_is_not_trusted(tmp_path):
    tables(tmp_path).read("a")
    tables(tmp_path).path("a").rename(tables(tmp_path).path("b"))
    assert tables(tmp_path).fault("b") == "outdated, it has another name"


def test_without_a_maker_an_absent_artifact_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match="a.json: absent"):
        ResultStore(tmp_path).read("a")


@both
def test_names_that_no_file_can_have_stay_apart(tmp_path, store):
    assert store(tmp_path).path("a/b") != store(tmp_path).path("a b")
    assert store(tmp_path).path("../b").parent == tmp_path


@both
def test_nothing_half_written_is_left_when_writing_fails(tmp_path, monkeypatch, store):
    full = OSError(errno.ENOSPC, "disk full")
    monkeypatch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(full))
    with pytest.raises(WriteError, match="cannot be written: disk full"):
        store(tmp_path).write("a")
    assert list(tmp_path.iterdir()) == []


def test_work_is_done_once(tmp_path):
    done = []
    for _ in range(2):
        assert ResultStore(tmp_path, "a").once("step", lambda: done.append(1) or {"n": 1}) == {"n": 1}
    assert done == [1]
    ResultStore(tmp_path).forget("step")
    ResultStore(tmp_path).forget("step")
    assert ResultStore(tmp_path).fault("step") == "absent"


def test_only_what_is_missing_is_made(tmp_path, caplog):
    made = []
    store = tables(tmp_path, made=made)
    store.write("b")
    store.path("c").write_bytes(b"PAR1")
    with caplog.at_level("INFO"):
        store.complete(["a", "b", "c", "d"], "numbers")
    assert made == ["b", "a", "c", "d"]
    assert "numbers of c are made again: damaged" in caplog.text and "numbers: 1 of 4 are done" in caplog.text


def test_digests_are_of_the_content(tmp_path):
    assert digest([{"a": 1, "b": 2}]) == digest(iter([{"b": 2, "a": 1}])) != digest([{"a": 1}, {"b": 2}])
    (tmp_path / "a").write_bytes(b"x")
    assert len(digest_of_file(tmp_path / "a")) == 64 and digest_of_file(tmp_path / "b") == ""


@pytest.mark.parametrize("seconds", [-1, 300])
def test_work_is_shared_out_anew_at_every_meeting(monkeypatch, seconds):
    """The other of two ranks does two items of its share until they meet, or all of them."""
    monkeypatch.setattr(artifacts, "SECONDS_BETWEEN_MEETINGS", seconds)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    meetings, done = [], []

    def all_gather(own):
        left = [number for number in range(9) if number not in {n for m in meetings for n in m}]
        others = left[1::2] if seconds > 0 else left[1::2][:2]
        meetings.append([*own, *others])
        return [own, {number: -number for number in others}]

    monkeypatch.setattr(comm, "all_gather", all_gather)

    def work(items):
        for item in items:
            done.append(item)
            yield item

    assert share_out(range(9), work, "scans") == [n if n in done else -n for n in range(9)]
    assert sorted(n for meeting in meetings for n in meeting) == list(range(9))
    if seconds > 0:
        assert meetings == [[0, 2, 4, 6, 8, 1, 3, 5, 7]]
    else:  # one each at a meeting here, two there
        assert meetings == [[0, 1, 3], [2, 4, 6], [5, 7], [8]]


def test_ranks_meet_while_the_first_works(monkeypatch):
    """The first rank is this thread, with one that meets the others; another thread is the second rank."""
    meetings, met, second = queue.Queue(), [], []

    def all_gather(own):
        if own is None:
            met.append(meetings.get())
            return [met[-1], None]
        meetings.put(own)
        return [own, None]

    def work():
        while len(met) < 3:
            time.sleep(0.001)
        return "found"

    monkeypatch.setattr(artifacts, "SECONDS_BETWEEN_MEETINGS", 0.001)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "all_gather", all_gather)
    other = threading.Thread(target=lambda: second.append(by_the_first(None)))
    monkeypatch.setattr(comm, "is_main_process", lambda: threading.current_thread() is not other)
    other.start()
    assert by_the_first(work) == "found"
    other.join()
    assert second == ["found"] and met[-1] == (True, "found") and set(met[:-1]) == {(False, None)}


def test_a_fault_in_the_first_ranks_work_ends_the_meetings(monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        by_the_first(lambda: 1 / 0)
    assert threading.active_count() == before
