"""Files are written whole or not at all, and one run at a time has a folder."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lens_d2.io.errors import DataError, WriteError
from lens_d2.io.files import only_run_in, read_bytes, whole_file, write_errors, write_whole

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_half_written_is_left(tmp_path):
    path = tmp_path / "new/table.csv"
    assert write_whole(path, b"first") == path and path.read_bytes() == b"first"
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".csv" and temporary.name[0] == "."
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"first" and list(path.parent.iterdir()) == [path]


def test_what_cannot_be_read_or_is_empty_is_refused(tmp_path):
    (tmp_path / "blank.csv").write_text(" \n")
    with pytest.raises(DataError, match="blank.csv: the file is empty"):
        read_bytes(tmp_path / "blank.csv")
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(DataError, match="cannot be read: "):
            read_bytes(path)


def test_errors_of_other_files_pass(tmp_path):
    with pytest.raises(WriteError, match="out: cannot be written: No such file"), write_errors(tmp_path / "out"):
        open(tmp_path / "out/absent")
    with pytest.raises(FileNotFoundError), write_errors(tmp_path / "out"):
        open(tmp_path / "input/absent")


def test_a_second_run_is_kept_out_while_the_first_lives(tmp_path):
    with only_run_in(tmp_path / "out"):
        with pytest.raises(DataError, match="another run is writing here"), only_run_in(tmp_path / "out"):
            pass
    with only_run_in(tmp_path / "out"):
        pass


def test_a_killed_run_leaves_no_lock(tmp_path):
    code = "import sys, time; from lens_d2.io.files import only_run_in\n"
    code += "with only_run_in(sys.argv[1]): print('in', flush=True); time.sleep(60)"
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"in\n"
    with pytest.raises(DataError, match="another run"), only_run_in(tmp_path):
        pass
    first.kill()
    first.wait()
    time.sleep(0.1)
    with only_run_in(tmp_path):
        pass


WRITE = """
import resource, sys
from lens_d2.io.files import whole_file
from lens_d2.io.errors import WriteError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with whole_file(sys.argv[1]) as path:
        path.write_bytes(bytes(100_000))
except WriteError as error:
    print(error)
"""


def test_nothing_half_written_on_a_full_disk(tmp_path):
    """In a process of its own: the limit would hold for the log of the tests as well."""
    table = tmp_path / "table.csv"
    table.write_bytes(b"before")
    run = subprocess.run([sys.executable, "-c", WRITE, table], cwd=ROOT, capture_output=True, text=True)
    assert "table.csv: cannot be written: " in run.stdout, run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    assert table.read_bytes() == b"before"
