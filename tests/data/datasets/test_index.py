"""An index of results that were computed from files."""

import json

import pytest

from lens_d2.data.datasets.catalog import Faults
from lens_d2.data.datasets.index import Job, computed
from lens_d2.io.errors import DataError


@pytest.fixture
def compute(tmp_path):
    """compute(version) gives the lengths of two files, of which one is no text, what was computed, and faults."""
    (tmp_path / "sound").write_text("four")
    (tmp_path / "bad").write_bytes(b"\xff")

    def run(version="1", index=tmp_path / "index/lengths.json"):
        done, faults = [], Faults()

        def length(path):
            done.append(path.name)
            try:
                return {"length": len(path.read_text())}
            except UnicodeDecodeError:
                raise DataError(path, "no text") from None

        jobs = {name: Job((tmp_path / name,), lambda p=tmp_path / name: length(p)) for name in ("sound", "bad")}
        return computed(index, version, jobs, faults), done, faults

    return run


def test_results_are_kept_until_a_file_or_the_version_changes(compute, tmp_path):
    results, done, faults = compute()
    assert results == {"sound": {"length": 4}} and done == ["sound", "bad"]
    assert str(faults["bad"]).endswith("bad: no text")
    assert compute()[:2] == (results, ["bad"])  # errors are not kept
    (tmp_path / "sound").write_text("seven..")
    assert compute()[:2] == ({"sound": {"length": 7}}, ["sound", "bad"])
    assert compute("2")[1] == ["sound", "bad"]


def test_a_damaged_index_is_made_anew(compute, tmp_path):
    compute()
    index = tmp_path / "index/lengths.json"
    assert list(json.loads(index.read_text())["entries"]) == ["sound"]
    index.write_text(index.read_text()[:40])
    assert compute()[1] == ["sound", "bad"]
    assert compute()[1] == ["bad"]


def test_a_file_that_is_gone_is_a_fault(compute, tmp_path):
    (tmp_path / "sound").unlink()
    results, _, faults = compute()
    assert results == {} and "cannot be read: No such file" in str(faults["sound"])


def test_an_index_that_cannot_be_written_is_done_without(compute, tmp_path, caplog):
    (tmp_path / "file").write_text("where the folder would be")
    assert compute(index=tmp_path / "file/lengths.json")[0] == {"sound": {"length": 4}}
    assert any("cannot be written" in text for text in caplog.messages)
