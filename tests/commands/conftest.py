"""The command ``predict`` of a small network, for the files that test it."""

import pytest
from helpers.predicted import run_predict


@pytest.fixture(autouse=True)
def closed_logs(monkeypatch):
    """The log of the test that ran a tool first is closed in the others, which need not be told."""
    monkeypatch.setattr("logging.raiseExceptions", False)


@pytest.fixture
def predict_scans(tmp_path):
    """Runs the command and returns its exit status; the output goes to tmp_path / "out"."""

    def run(source, *options, output=None, **rest) -> int:
        return run_predict(source, output or tmp_path / "out", *options, **rest)

    return run
