"""How far a job is: a bar on a terminal, now and then a line elsewhere, nothing on other ranks."""

import io
import logging

import pytest
from detectron2.utils import comm

from lens_d2.io import progress as module
from lens_d2.io.artifacts import share_out
from lens_d2.io.progress import Progress, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns; ``clock[0]`` is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_ten_seconds_and_one_at_the_end(clock, caplog):
    caplog.set_level(logging.INFO)
    with Progress(8, "caching") as shown:
        for _ in range(8):
            clock[0] += 4
            shown.update()
    assert caplog.messages == [
        "caching: 3 of 8, 4 s each, 0:00:20 left",
        "caching: 6 of 8, 4 s each, 0:00:08 left",
        "caching: 8 of 8, 32.0 s",
    ]


def test_a_short_nested_job_says_nothing(clock, caplog):
    caplog.set_level(logging.INFO)
    assert list(progress([1, 2, 3], "slices", nested=True)) == [1, 2, 3]
    assert caplog.messages == []


def test_a_bar_on_a_terminal_and_no_lines(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert list(progress("abc", "scans", "scan")) == ["a", "b", "c"]
    assert "scans: 100%" in terminal.getvalue() and "3/3" in terminal.getvalue()
    assert caplog.messages == []


def test_without_a_log_lines_go_to_the_standard_error(clock, capsys, monkeypatch):
    monkeypatch.setattr(module.logger, "isEnabledFor", lambda level: False)
    list(progress([1], "blobs"))
    assert capsys.readouterr().err == "blobs: 1 of 1, 0.0 s\n"


def test_other_ranks_and_empty_jobs_are_silent(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    list(progress([], "nothing"))
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    list(progress([1], "rank 1"))
    assert caplog.messages == []


def test_an_interrupted_job_tells_how_far_it_came(clock, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(KeyError), Progress(3, "mining") as shown:
        shown.update()
        raise KeyError
    assert caplog.messages == ["mining: 1 of 3, 0.0 s"]


def test_units_of_all_ranks_are_counted(clock, caplog):
    caplog.set_level(logging.INFO)
    done = []
    assert share_out(range(5), lambda items: map(done.append, items), "proposals") == [None] * 5
    assert done == [0, 1, 2, 3, 4]
    assert caplog.messages == ["proposals: 5 of 5, 0.0 s"]
