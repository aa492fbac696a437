"""The command ``predict`` on archives: broken scans, resuming, several processes."""

import csv
import os
import time

import cv2
import numpy as np
import pytest
from helpers.kills import Killed, kill_at
from helpers.predicted import AFFINE, FILES, names, worlds
from helpers.scan_files import make_slice, write_pngs, write_series, write_volume
from pydicom import uid

from lens_d2 import lesion_detector as detector
from lens_d2.commands import predict
from lens_d2.commands.options import get_parser
from lens_d2.config import load_config
from lens_d2.data.scans import PNG, VOLUME, find_scans
from lens_d2.io.errors import DataError
from lens_d2.io.files import only_run_in
from lens_d2.lesion_detector import LesionDetector

NAME, ID = "Mustermann^Erika", "PID4711"


def test_folder_of_scans_goes_on_past_a_broken_one(predict_scans, array, tmp_path, capsys, caplog):
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in/a.nii.gz", array, AFFINE)
    (tmp_path / "in/b.nii.gz").write_bytes(b"\x1f\x8b not a volume")
    write_series(tmp_path / "in/c", array, AFFINE)
    write_volume(tmp_path / "in/d.mha", array, AFFINE)
    (tmp_path / "in/d.mha").write_bytes((tmp_path / "in/d.mha").read_bytes()[:2000])
    assert predict_scans(tmp_path / "in") == 1
    captured = capsys.readouterr()
    assert "2 of 4 scans done" in captured.out
    assert "scans: 4 of 4" in captured.out + captured.err + caplog.text  # progress, off a terminal
    failures = [line for line in captured.err.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failures] == ["scan_002", "scan_003"]
    assert "Traceback" not in captured.err
    assert names(tmp_path / "out") == ["scan_001", "scan_004", "scans.csv"]
    with open(tmp_path / "out/scans.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["status"] for row in table] == ["done", "failed", "failed", "done"]
    assert [row["detections"] for row in table] == ["5", "", "", "5"]
    assert [row["folder"] for row in table] == ["scan_001", "scan_002", "scan_003", "scan_004"]
    assert "not a readable volume" in table[1]["fault"]


def test_parts_of_a_series_say_so_in_their_outputs(predict_scans, array, tmp_path):
    for folder, rise in (("a", 0), ("b", 1)):
        affine = AFFINE.copy()
        affine[2, 3] += rise * AFFINE[2, 2]
        write_series(tmp_path / "in" / folder, array, affine, "1.2.3", StudyInstanceUID="1.9")
    assert predict_scans(tmp_path / "in") == 0
    with open(tmp_path / "out/scans.csv") as file:
        table = list(csv.DictReader(file))
    for number, row in enumerate(table, 1):
        told = f"part {number} of 2 of its series"
        assert told in row["warnings"] and told in (tmp_path / f"out/{row['folder']}/report.html").read_text()


def test_an_unexpected_error_stops_only_its_scan(predict_scans, array, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_volume(tmp_path / f"in/{name}.nii.gz", array, AFFINE)
    original = detector.make_report

    def fails_at_first(title, *args, **options):
        if title == "Scan 1":
            raise RuntimeError("out of\nmemory in a.nii.gz")
        return original(title, *args, **options)

    monkeypatch.setattr(detector, "make_report", fails_at_first)
    assert predict_scans(tmp_path / "in") == 1
    errors = capsys.readouterr().err
    assert "failed: scan_001: RuntimeError" in errors.splitlines()
    assert "a.nii.gz" not in errors
    assert names(tmp_path / "out") == ["scan_002", "scans.csv"]


def test_no_report_of_an_earlier_run_stands_for_another_scan(predict_scans, array, tmp_path):
    """A file that comes in changes the numbers of those behind it; one that goes, how many there are."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "bcd":
        write_volume(folder / f"{name}.nii.gz", array, AFFINE)
    assert predict_scans(folder) == 0 and names(tmp_path / "out") == [
        "scan_001",
        "scan_002",
        "scan_003",
        "scans.csv",
    ]
    (tmp_path / "out/scan_003/notes.txt").write_text("the radiologist's own")
    (folder / "a.nii.gz").write_bytes(b"\x1f\x8b not a volume")
    for name in "cd":
        (folder / f"{name}.nii.gz").unlink()
    assert predict_scans(folder) == 1
    assert names(tmp_path / "out") == ["scan_002", "scan_003", "scans.csv"]
    assert names(tmp_path / "out/scan_003") == ["notes.txt"]
    assert predict_scans(folder / "b.nii.gz", output=tmp_path / "one") == 0
    assert predict_scans(folder / "a.nii.gz", output=tmp_path / "one") == 2
    assert not (tmp_path / "one").exists()
    assert predict_scans(folder / "b.nii.gz") == 0 and names(tmp_path / "out") == [*FILES, "scan_003"]
    assert os.listdir(tmp_path / "out/scan_003") == ["notes.txt"] and not (tmp_path / "out/.scans").exists()
    assert predict_scans(folder) == 1 and names(tmp_path / "out") == ["scan_002", "scan_003", "scans.csv"]


def test_a_second_run_is_kept_out_of_the_output(predict_scans, array, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with only_run_in(tmp_path / "out"):
        assert predict_scans(write_volume(tmp_path / "ct.nii", array, AFFINE)) == 2
    assert "another run is writing here" in capsys.readouterr().err and names(tmp_path / "out") == []


def test_an_unexpected_error_of_a_scan_names_nobody(predict_scans, array, tmp_path, capsys, caplog, monkeypatch):
    """Of the error no more than its kind, unless identifiers are wanted."""
    path, message = write_volume(tmp_path / "ct.nii", array, AFFINE), "cannot decode /archive/Smith^John"

    def fail(*args, **kw):
        raise RuntimeError(message)

    monkeypatch.setattr(predict.LesionDetector, "__call__", fail)
    for options, is_named in (((), False), (("--keep-ids",), True)):
        caplog.clear()
        assert predict_scans(path, *options) == 1
        told = capsys.readouterr().err + caplog.text
        assert "RuntimeError" in told and ("Smith" in told) == is_named


def test_names_that_are_no_unicode_end_no_batch(predict_scans, array, tmp_path, monkeypatch):
    """And the file at fault is named, though the input is given relative to the working directory."""
    folder = tmp_path / "in/a"
    write_series(folder, array, AFFINE)
    damaged = sorted(folder.iterdir())[0]
    damaged.rename(os.fsdecode(os.fsencode(folder) + b"/M\xfcller_1.dcm"))
    next(folder.glob("M*")).write_bytes(b"\0" * 128 + b"DICM" + b"damaged" * 9)
    write_volume(tmp_path / "in/b.nii", array, AFFINE)
    monkeypatch.chdir(tmp_path)
    assert predict_scans("in", "--keep-ids") == 1
    with open(tmp_path / "out/scans.csv") as file:
        faults = [row["fault"] for row in csv.DictReader(file) if row["status"] == "failed"]
    assert len(faults) == 1 and faults[0].startswith("M\ufffdller_1.dcm: ")


def test_what_lies_beside_scans_ends_no_batch(predict_scans, array, tmp_path, capsys):
    folder = tmp_path / "in"
    write_series(folder / "a", array, AFFINE, SOPClassUID=uid.MRImageStorage, Modality="MR")
    write_series(folder / "b", array, AFFINE)
    write_series(folder / "c", array[:1], AFFINE)
    cut = sorted(write_series(folder / "d", array, AFFINE).iterdir())[3]
    cut.write_bytes(cut.read_bytes()[:-100])
    (folder / "e_screens").mkdir()
    cv2.imwrite(str(folder / "e_screens/1.png"), np.zeros((8, 8), np.uint8))
    write_pngs(folder / "f_pngs", array)
    assert predict_scans(folder) == 1
    with open(tmp_path / "out/scans.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["status"] for row in table] == ["failed", "done", "failed", "failed", "passed over", "failed"]
    words = ["no CT slices, but MR Image", "", "a single slice has no slice interval", "file 4: truncated: "]
    words += ["picture of mode L where a 16-bit grey slice (I;16) belongs", "PNG slices carry no spacing"]
    assert all(text in row["fault"] for text, row in zip(words, table, strict=True))
    assert "1 of 5 scans done" in capsys.readouterr().out


def test_a_disc_and_outputs_within_the_input(predict_scans, array, tmp_path):
    disc = tmp_path / "disc"
    write_series(disc / "PT/ST/SE", array, AFFINE)
    directory = make_slice(array[0], "1.2.9", "1.2", uid.MediaStorageDirectoryStorage)
    del directory.PixelData
    directory.save_as(disc / "DICOMDIR", enforce_file_format=True)
    for output in (disc / "out1", disc / "out2"):
        assert predict_scans(disc, output=output) == 0
        assert names(output) == ["scan_001", "scans.csv"]


# Resuming, and several processes


@pytest.fixture
def archive(array, tmp_path):
    """Five scans, the second of them damaged, and pictures that are none."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "acde":
        write_volume(folder / f"{name}.nii.gz", array + ord(name), AFFINE)
    (folder / "b.nii.gz").write_bytes(b"\x1f\x8b not a volume")
    (folder / "f").mkdir()
    cv2.imwrite(str(folder / "f/1.png"), np.zeros((8, 8), np.uint8))
    return folder


def test_resumed_it_runs_what_has_no_whole_outputs(predict_scans, archive, array, tmp_path, monkeypatch, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, detector, "make_report", 3)
        predict_scans(archive)
    assert names(tmp_path / "out") == ["scan_001", "scan_003"]
    made = kill_at(monkeypatch, detector, "make_report")
    (tmp_path / "out/scan_003/report.html").write_text("cut")
    assert predict_scans(archive, "--resume") == 1
    assert [title for title, *_ in made] == ["Scan 3", "Scan 4", "Scan 5"]
    assert "4 of 5 scans done" in capsys.readouterr().out
    table = (tmp_path / "out/scans.csv").read_text()
    statuses = [line.split(",")[1] for line in table.splitlines()[1:]]
    assert statuses == ["done", "failed", "done", "done", "done", "passed over"]
    assert (
        predict_scans(archive, "--resume") == 1
        and len(made) == 3
        and (tmp_path / "out/scans.csv").read_text() == table
    )
    write_volume(archive / "d.nii.gz", array, AFFINE)
    assert predict_scans(archive, "--resume") == 1 and [title for title, *_ in made[3:]] == ["Scan 4"]
    os.utime(archive / "e.nii.gz", ns=(0, 0))
    assert predict_scans(archive, "--resume") == 1 and [title for title, *_ in made[4:]] == ["Scan 5"]
    made.clear()
    assert predict_scans(archive, "--resume", "--score-threshold", "0.2") == 1 and len(made) == 4
    assert predict_scans(archive, "--score-threshold", "0.2") == 1 and len(made) == 4 + 4


def test_resumed_scans_keep_their_numbers(predict_scans, archive, array, tmp_path, monkeypatch):
    """Though a file comes in that sorts first, and another goes."""
    assert predict_scans(archive) == 1
    reports = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/report.html")}
    write_volume(archive / "Aa.nii.gz", array, AFFINE)
    made = kill_at(monkeypatch, detector, "make_report")
    assert predict_scans(archive, "--resume") == 1
    assert [title for title, *_ in made] == ["Scan 6"]
    with open(tmp_path / "out/scans.csv") as file:
        rows = [(row["folder"], row["status"]) for row in csv.DictReader(file)]
    statuses = ["done", "failed", "done", "done", "done", "done", "passed over"]
    assert rows == [(f"scan_{number:03d}", status) for number, status in enumerate(statuses, 1)]
    assert all(path.read_bytes() == content for path, content in reports.items())
    (archive / "a.nii.gz").unlink()
    write_volume(archive / "b.nii.gz", array, AFFINE)
    made.clear()
    assert predict_scans(archive, "--resume") == 0 and len(made) == 1
    assert names(tmp_path / "out") == [*(f"scan_{number:03d}" for number in (1, 3, 4, 5, 6)), "scans.csv"]


def test_a_scan_is_another_when_a_file_of_it_is(tmp_path, array):
    """Slices in a folder, and voxels beside their header; what is written below the output does not count."""
    folder = tmp_path / "in/slices"
    folder.mkdir(parents=True)
    for number in (1, 2):
        cv2.imwrite(str(folder / f"{number:03}.png"), np.full((8, 8), 32768, np.uint16))
    write_volume(tmp_path / "in/v.mhd", array, AFFINE)
    scans = {scan.kind: scan for scan in find_scans(tmp_path / "in", spacing=(1, 1, 1))}
    args = get_parser().parse_args(["predict", "--input", "in", "--output", "out"])
    store = predict.OutcomeStore(
        folder / "out", load_config("phantom/lens_multi.yaml", ["MODEL.WEIGHTS", ""]), args
    )
    for kind, file in ((PNG, folder / "002.png"), (VOLUME, tmp_path / "in/v.raw")):
        before = store.header(scans[kind])
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out/report.html").write_text(kind)
        assert store.header(scans[kind]) == before
        os.utime(file, ns=(0, 0))
        assert store.header(scans[kind]) != before


def test_a_scan_that_memory_holds_alone_is_no_failure(predict_scans, archive, monkeypatch, tmp_path):
    """Free memory is short while another scan is there."""
    read, at_work = LesionDetector.read, []

    def read_if_alone(self, *args):
        if at_work:
            raise DataError("scan", "12,345 voxels need 2.0 GB of memory, 1.0 GB are free")
        return read(self, *args)

    detect = LesionDetector.__call__

    def call(self, *args, **options):
        at_work.append(True)
        time.sleep(0.05)  # in which the next scan is tried
        found = detect(self, *args, **options)
        at_work.clear()
        return found

    monkeypatch.setattr(LesionDetector, "read", read_if_alone)
    monkeypatch.setattr(LesionDetector, "__call__", call)
    (archive / "b.nii.gz").unlink()
    assert predict_scans(archive) == 0
    assert names(tmp_path / "out") == ["scan_001", "scan_002", "scan_003", "scan_004", "scans.csv"]


def test_two_processes_write_what_one_writes(predict_scans, archive, tmp_path, capfd):
    assert predict_scans(archive) == 1
    capfd.readouterr()
    ranks = ("--num-gpus", "2", "--dist-url", f"file://{tmp_path}/group")
    assert predict_scans(archive, *ranks, output=tmp_path / "two") == 1
    printed = capfd.readouterr()
    assert "4 of 5 scans done" in printed.out
    assert [line for line in printed.err.splitlines() if "Traceback" in line] == []
    (failure,) = [line for line in printed.err.splitlines() if line.startswith("failed: ")]
    assert failure.startswith("failed: scan_002: not a readable volume")
    assert names(tmp_path / "two") == names(tmp_path / "out")
    for name in names(tmp_path / "out"):
        ours, theirs = tmp_path / "two" / name, tmp_path / "out" / name
        if name == "scans.csv":
            assert ours.read_text() == theirs.read_text()
        else:
            np.testing.assert_allclose(worlds(ours), worlds(theirs), atol=1e-4)
