"""Commands end with one line for bad input or a full disk, and with a traceback for faults of the program."""

import errno
import logging
from types import SimpleNamespace

import pytest

from lens_d2.io import cli
from lens_d2.io.cli import BAD_INPUT, at_level, fault_of, run, without_known_faults
from lens_d2.io.errors import DataError, WriteError


@pytest.fixture(autouse=True)
def log_file(tmp_path, monkeypatch):
    """The only log that a command finds and closes, while pytest's own stay open."""
    handlers = [SimpleNamespace(stream=open(tmp_path / "log.txt", "w"))]
    root = SimpleNamespace(handlers=handlers, setLevel=lambda level: None)
    manager = SimpleNamespace(loggerDict={"a": object()})  # as the place of a logger without a name
    fake = SimpleNamespace(getLogger=lambda *names: root, ERROR=40, Logger=SimpleNamespace(manager=manager))
    monkeypatch.setattr(cli, "logging", fake)
    yield root.handlers[0].stream
    root.handlers[0].stream.close()


def failing(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("a.csv", "is empty"), "a.csv: is empty"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EACCES, "Permission denied", "out"), "out: Permission denied"),
    ],
)
def test_known_faults_are_one_line(error, line, capsys):
    assert run(failing(error)) == BAD_INPUT
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("error", [ValueError("x"), ConnectionResetError(errno.ECONNRESET, "reset"), OSError("x")])
def test_other_errors_keep_their_traceback(error):
    assert fault_of(error) is None
    with pytest.raises(type(error)):
        run(failing(error))


def test_the_bodys_status_is_the_commands():
    assert run(lambda: None) == 0 and run(lambda: 3) == 3


def test_logs_on_a_full_disk_are_closed(log_file):
    assert run(failing(DataError("a.csv", "is empty"))) == BAD_INPUT and not log_file.closed
    assert run(failing(WriteError("out", "is full"))) == BAD_INPUT and log_file.closed


def test_loggers_are_quiet_for_a_while(monkeypatch):
    monkeypatch.undo()
    logger = logging.getLogger("lens_d2.test")
    with at_level(logging.ERROR, logger.name):
        assert not logger.isEnabledFor(logging.WARNING)
    assert logger.level == logging.NOTSET


def test_tracebacks_of_known_faults_are_dropped():
    for error, kept in ((DataError("a", "b"), False), (ValueError("c"), True)):
        info = (type(error), error, None)
        record = logging.LogRecord("name", logging.ERROR, "file", 1, "Exception", (), info)
        assert without_known_faults(record) is kept
