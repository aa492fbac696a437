"""Golden cases, the command ``evaluate``, and small files."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import evaluated
from helpers.evaluated import registration

from lens_d2.commands import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def golden() -> Path:
    """Predictions on made-up truth, with the results that the published scripts give for them."""
    return ROOT / "tests" / "golden"


@pytest.fixture
def write(tmp_path):
    """write("a.json", content) writes JSON (or text as it is) and gives the path."""

    def write(name: str, content) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture
def evaluate(tmp_path, capsys):
    """evaluate(*words) runs the command: (status, metrics or None, standard error)."""

    def run(*words):
        folder = tmp_path / "results"
        shutil.rmtree(folder, ignore_errors=True)
        words = [str(word) for word in words]
        if "--bootstrap" not in words:
            words += ["--bootstrap", "0"]
        try:
            status = main(["evaluate", *words, "--output", str(folder)])
        except SystemExit as end:
            status = end.code
        file = folder / "metrics.json"
        return status, json.loads(file.read_text()) if file.exists() else None, capsys.readouterr().err

    return run


@pytest.fixture
def register():
    """register(records, evaluator_type, dataset): the name of a new dataset, gone after the test."""
    with registration() as add:
        yield add


@pytest.fixture
def scene():
    """Two sub-volumes; one detection right, one wrong, with boxes on their slices."""
    return evaluated.scene()
