"""The command ``predict`` from scans to files, with a small network of random weights."""

import csv
import json
import os
import shlex
import time

import cv2
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from detectron2.modeling import build_model
from helpers.kills import Killed, kill_at
from helpers.processes import run_line
from helpers.scan_files import make_affine, make_slice, write_enhanced, write_pngs, write_series, write_volume
from pydicom import uid
from scipy.special import expit, logit

from lens_d2 import lesion_detector as detector
from lens_d2.commands import main, predict
from lens_d2.commands.options import get_parser
from lens_d2.config import load_config
from lens_d2.data.scans import PNG, VOLUME, find_scans
from lens_d2.io.errors import DataError
from lens_d2.io.files import only_run_in
from lens_d2.lesion_detector import LesionDetector
from lens_d2.modeling.classifiers import build_classifier

SMALL = (
    ["MODEL.DEVICE", "cpu", "INPUT.PIXEL_SPACING", "4.0", "INPUT.SLICE_INTERVAL", "3.0"]
    + ["MODEL.DENSENET.GROWTH_RATE", "4", "MODEL.DENSENET.BLOCK_CONFIG", "(2, 2, 2)"]
    + ["MODEL.DENSENET.OUT_CHANNELS", "16", "MODEL.AFP.CONV_DIM", "8", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"]
)
SMALL_CLASSIFIER = ["MODEL.FPR.WIDTH", "4", "MODEL.FPR.FC_DIM", "8", "MODEL.FPR.PATCH_SIZE", "(8, 24, 24)"]
FILES = ["detections.csv", "detections.json", "detections.mrk.json", "detections.nii.gz", "report.html"]
NAME, ID = "Mustermann^Erika", "PID4711"


@pytest.fixture(autouse=True)
def closed_logs(monkeypatch):
    """The log of the test that ran the tool first is closed in the others, which need not be told."""
    monkeypatch.setattr("logging.raiseExceptions", False)


@pytest.fixture(scope="module")
def config(repo_root):
    return str(repo_root / "configs/phantom/lens_multi.yaml")


def config_with(config: str, *opts: str):
    """The config of a run of the small network, with overrides."""
    words = ["predict", "--config-file", config, "--input", "x", "--output", "y", "--allow-random-weights"]
    return predict.read_config(get_parser().parse_args([*words, "--opts", *SMALL, *opts]))


@pytest.fixture
def run(config, tmp_path):
    """Runs the tool and returns its exit code; the output goes to tmp_path / "out"."""

    def run(source, *options, opts=(), output=None, weights="--allow-random-weights"):
        output = output or tmp_path / "out"
        command = [
            "--config-file",
            config,
            "--input",
            str(source),
            "--output",
            str(output),
            "--max-detections",
            "5",
        ]
        return main(["predict", *command, weights, *options, "--opts", *SMALL, *opts])

    return run


AFFINE = make_affine((4, 4, 3), origin=(-90, -70, 100))


def detections(folder) -> list[dict]:
    return json.loads((folder / "detections.json").read_text())["detections"]


def worlds(folder) -> np.ndarray:
    """(n, 7) world box and score of every detection."""
    boxes = [(each["world_box_lps_mm"], each["score"]) for each in detections(folder)]
    return np.array([[*box["min"].values(), *box["max"].values(), score] for box, score in boxes])


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# One scan


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.mha", "ct.nrrd"])
def test_volume_file(run, array, tmp_path, name, capsys):
    assert run(write_volume(tmp_path / name, array, AFFINE)) == 0
    assert names(tmp_path / "out") == FILES
    assert len(detections(tmp_path / "out")) == 5
    assert "5 detections; look at" in capsys.readouterr().out


def test_real_ct_as_nifti_and_as_dicom_gives_the_same_in_world_coordinates(run, shared_dir, tmp_path):
    path = shared_dir / "ct/torso_3mm_30_slices.nii.gz"
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    affine = make_affine(image.GetSpacing(), np.reshape(image.GetDirection(), (3, 3)), image.GetOrigin())
    voxels = np.rint(sitk.GetArrayFromImage(image)).clip(-1024, 3071).astype(np.int16)
    series = write_series(tmp_path / "series", voxels, affine)
    assert run(path, output=tmp_path / "nifti") == run(series, output=tmp_path / "dicom") == 0
    assert names(tmp_path / "dicom") == sorted([*FILES, "detections.dcm", "detections.seg.dcm"])
    assert len(worlds(tmp_path / "nifti")) == 5
    np.testing.assert_allclose(worlds(tmp_path / "nifti"), worlds(tmp_path / "dicom"), atol=0.01)
    labels = [sitk.ReadImage(str(tmp_path / kind / "detections.nii.gz")) for kind in ("nifti", "dicom")]
    flipped = sitk.GetArrayFromImage(sitk.DICOMOrient(labels[0], "LPS"))
    np.testing.assert_array_equal(flipped, sitk.GetArrayFromImage(labels[1]))


def test_png_slices(run, array, tmp_path, capsys):
    folder = write_pngs(tmp_path / "000001_01_01", array)
    assert run(folder) == 2
    assert "PNG slices carry no spacing" in capsys.readouterr().err
    assert run(folder, "--spacing", "4", "4", "-3") == 0
    scan = json.loads((tmp_path / "out/detections.json").read_text())["scan"]
    assert scan["spacing_xyz_mm"] == [4, 4, 3] and scan["slice_labels"][0] == "file 001"


def test_several_series(run, array, tmp_path, capsys):
    folder = write_series(tmp_path / "s", array, AFFINE, "1.2.3", SeriesDescription="Thorax")
    write_series(folder, array[:3], AFFINE, "1.2.4")
    assert run(folder) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any("pick one by its UID (--series UID)" in line for line in lines)
    assert "  1.2.3  5 images  CT  Thorax" in lines and "  1.2.4  3 images  CT" in lines
    assert run(folder, "--series", "1.2.3") == 0
    document = pydicom.dcmread(tmp_path / "out/detections.dcm")
    (study,) = document.PertinentOtherEvidenceSequence
    assert [series.SeriesInstanceUID for series in study.ReferencedSeriesSequence] == ["1.2.3"]
    assert run(folder, "--series", "9.9") == 2


def test_threshold(run, array, tmp_path):
    assert run(write_volume(tmp_path / "ct.nii.gz", array, AFFINE), "--score-threshold", "1.1") == 0
    assert detections(tmp_path / "out") == []


# Many scans


def test_folder_of_scans_goes_on_past_a_broken_one(run, array, tmp_path, capsys, caplog):
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in/a.nii.gz", array, AFFINE)
    (tmp_path / "in/b.nii.gz").write_bytes(b"\x1f\x8b not a volume")
    write_series(tmp_path / "in/c", array, AFFINE)
    write_volume(tmp_path / "in/d.mha", array, AFFINE)
    (tmp_path / "in/d.mha").write_bytes((tmp_path / "in/d.mha").read_bytes()[:2000])
    assert run(tmp_path / "in") == 1
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


def test_an_unexpected_error_stops_only_its_scan(run, array, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_volume(tmp_path / f"in/{name}.nii.gz", array, AFFINE)
    original = detector.make_report

    def fails_at_first(title, *args, **options):
        if title == "Scan 1":
            raise RuntimeError("out of\nmemory in a.nii.gz")
        return original(title, *args, **options)

    monkeypatch.setattr(detector, "make_report", fails_at_first)
    assert run(tmp_path / "in") == 1
    errors = capsys.readouterr().err
    assert "failed: scan_001: RuntimeError" in errors.splitlines()
    assert "a.nii.gz" not in errors
    assert names(tmp_path / "out") == ["scan_002", "scans.csv"]


def test_no_report_of_an_earlier_run_stands_for_another_scan(run, array, tmp_path):
    """A file that comes in changes the numbers of those behind it; one that goes, how many there are."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "bcd":
        write_volume(folder / f"{name}.nii.gz", array, AFFINE)
    assert run(folder) == 0 and names(tmp_path / "out") == ["scan_001", "scan_002", "scan_003", "scans.csv"]
    (tmp_path / "out/scan_003/notes.txt").write_text("the radiologist's own")
    (folder / "a.nii.gz").write_bytes(b"\x1f\x8b not a volume")
    for name in "cd":
        (folder / f"{name}.nii.gz").unlink()
    assert run(folder) == 1
    assert names(tmp_path / "out") == ["scan_002", "scan_003", "scans.csv"]
    assert names(tmp_path / "out/scan_003") == ["notes.txt"]
    assert run(folder / "b.nii.gz", output=tmp_path / "one") == 0
    assert run(folder / "a.nii.gz", output=tmp_path / "one") == 2
    assert not (tmp_path / "one").exists()
    assert run(folder / "b.nii.gz") == 0 and names(tmp_path / "out") == [*FILES, "scan_003"]
    assert os.listdir(tmp_path / "out/scan_003") == ["notes.txt"] and not (tmp_path / "out/.scans").exists()
    assert run(folder) == 1 and names(tmp_path / "out") == ["scan_002", "scan_003", "scans.csv"]


def test_a_second_run_is_kept_out_of_the_output(run, array, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with only_run_in(tmp_path / "out"):
        assert run(write_volume(tmp_path / "ct.nii", array, AFFINE)) == 2
    assert "another run is writing here" in capsys.readouterr().err and names(tmp_path / "out") == []


def test_an_unexpected_error_of_a_scan_names_nobody(run, array, tmp_path, capsys, caplog, monkeypatch):
    """Of the error no more than its kind, unless identifiers are wanted."""
    path, message = write_volume(tmp_path / "ct.nii", array, AFFINE), "cannot decode /archive/Smith^John"

    def fail(*args, **kw):
        raise RuntimeError(message)

    monkeypatch.setattr(predict.LesionDetector, "__call__", fail)
    for options, is_named in (((), False), (("--keep-ids",), True)):
        caplog.clear()
        assert run(path, *options) == 1
        told = capsys.readouterr().err + caplog.text
        assert "RuntimeError" in told and ("Smith" in told) == is_named


def test_names_that_are_no_unicode_end_no_batch(run, array, tmp_path, monkeypatch):
    """And the file at fault is named, though the input is given relative to the working directory."""
    folder = tmp_path / "in/a"
    write_series(folder, array, AFFINE)
    damaged = sorted(folder.iterdir())[0]
    damaged.rename(os.fsdecode(os.fsencode(folder) + b"/M\xfcller_1.dcm"))
    next(folder.glob("M*")).write_bytes(b"\0" * 128 + b"DICM" + b"damaged" * 9)
    write_volume(tmp_path / "in/b.nii", array, AFFINE)
    monkeypatch.chdir(tmp_path)
    assert run("in", "--keep-ids") == 1
    with open(tmp_path / "out/scans.csv") as file:
        faults = [row["fault"] for row in csv.DictReader(file) if row["status"] == "failed"]
    assert len(faults) == 1 and faults[0].startswith("M\ufffdller_1.dcm: ")


def test_what_lies_beside_scans_ends_no_batch(run, array, tmp_path, capsys):
    folder = tmp_path / "in"
    write_series(folder / "a", array, AFFINE, SOPClassUID=uid.MRImageStorage, Modality="MR")
    write_series(folder / "b", array, AFFINE)
    write_series(folder / "c", array[:1], AFFINE)
    cut = sorted(write_series(folder / "d", array, AFFINE).iterdir())[3]
    cut.write_bytes(cut.read_bytes()[:-100])
    (folder / "e_screens").mkdir()
    cv2.imwrite(str(folder / "e_screens/1.png"), np.zeros((8, 8), np.uint8))
    write_pngs(folder / "f_pngs", array)
    assert run(folder) == 1
    with open(tmp_path / "out/scans.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["status"] for row in table] == ["failed", "done", "failed", "failed", "passed over", "failed"]
    words = ["no CT slices, but MR Image", "", "a single slice has no slice interval", "file 4: truncated: "]
    words += ["picture of mode L where a 16-bit grey slice (I;16) belongs", "PNG slices carry no spacing"]
    assert all(text in row["fault"] for text, row in zip(words, table, strict=True))
    assert "1 of 5 scans done" in capsys.readouterr().out


def test_a_disc_and_outputs_within_the_input(run, array, tmp_path):
    disc = tmp_path / "disc"
    write_series(disc / "PT/ST/SE", array, AFFINE)
    directory = make_slice(array[0], "1.2.9", "1.2", uid.MediaStorageDirectoryStorage)
    del directory.PixelData
    directory.save_as(disc / "DICOMDIR", enforce_file_format=True)
    for output in (disc / "out1", disc / "out2"):
        assert run(disc, output=output) == 0
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


def test_resumed_it_runs_what_has_no_whole_outputs(run, archive, array, tmp_path, monkeypatch, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, detector, "make_report", 3)
        run(archive)
    assert names(tmp_path / "out") == ["scan_001", "scan_003"]
    made = kill_at(monkeypatch, detector, "make_report")
    (tmp_path / "out/scan_003/report.html").write_text("cut")
    assert run(archive, "--resume") == 1
    assert [title for title, *_ in made] == ["Scan 3", "Scan 4", "Scan 5"]
    assert "4 of 5 scans done" in capsys.readouterr().out
    table = (tmp_path / "out/scans.csv").read_text()
    statuses = [line.split(",")[1] for line in table.splitlines()[1:]]
    assert statuses == ["done", "failed", "done", "done", "done", "passed over"]
    assert run(archive, "--resume") == 1 and len(made) == 3 and (tmp_path / "out/scans.csv").read_text() == table
    write_volume(archive / "d.nii.gz", array, AFFINE)
    assert run(archive, "--resume") == 1 and [title for title, *_ in made[3:]] == ["Scan 4"]
    os.utime(archive / "e.nii.gz", ns=(0, 0))
    assert run(archive, "--resume") == 1 and [title for title, *_ in made[4:]] == ["Scan 5"]
    made.clear()
    assert run(archive, "--resume", "--score-threshold", "0.2") == 1 and len(made) == 4
    assert run(archive, "--score-threshold", "0.2") == 1 and len(made) == 4 + 4


def test_resumed_scans_keep_their_numbers(run, archive, array, tmp_path, monkeypatch):
    """Though a file comes in that sorts first, and another goes."""
    assert run(archive) == 1
    reports = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/report.html")}
    write_volume(archive / "Aa.nii.gz", array, AFFINE)
    made = kill_at(monkeypatch, detector, "make_report")
    assert run(archive, "--resume") == 1
    assert [title for title, *_ in made] == ["Scan 6"]
    with open(tmp_path / "out/scans.csv") as file:
        rows = [(row["folder"], row["status"]) for row in csv.DictReader(file)]
    statuses = ["done", "failed", "done", "done", "done", "done", "passed over"]
    assert rows == [(f"scan_{number:03d}", status) for number, status in enumerate(statuses, 1)]
    assert all(path.read_bytes() == content for path, content in reports.items())
    (archive / "a.nii.gz").unlink()
    write_volume(archive / "b.nii.gz", array, AFFINE)
    made.clear()
    assert run(archive, "--resume") == 0 and len(made) == 1
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


def test_a_scan_that_memory_holds_alone_is_no_failure(run, archive, monkeypatch, tmp_path):
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
    assert run(archive) == 0
    assert names(tmp_path / "out") == ["scan_001", "scan_002", "scan_003", "scan_004", "scans.csv"]


def test_two_processes_write_what_one_writes(run, archive, tmp_path, capfd):
    assert run(archive) == 1
    capfd.readouterr()
    ranks = ("--num-gpus", "2", "--dist-url", f"file://{tmp_path}/group")
    assert run(archive, *ranks, output=tmp_path / "two") == 1
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


# Scans of DICOM that are not one file per slice


def test_frames_of_one_file(run, array, tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", array, AFFINE, [3, 1, 4, 0, 2])
    assert run(path, "--keep-ids") == 0
    assert names(tmp_path / "out") == FILES  # no structured report: its slices have no files
    series = write_series(tmp_path / "ct", array, AFFINE)
    assert run(series, output=tmp_path / "series") == 0
    np.testing.assert_allclose(worlds(tmp_path / "out"), worlds(tmp_path / "series"), atol=1e-6)


def test_a_slice_alone(run, array, tmp_path, capsys):
    folder = write_series(tmp_path / "ct", array, AFFINE)
    assert run(next(folder.iterdir())) == 2
    assert "one slice of a DICOM series: give the folder" in capsys.readouterr().err


def test_gaps_are_filled_if_asked_for(run, array, tmp_path, capsys):
    folder = write_series(tmp_path / "ct", array, AFFINE, change=lambda k, data: k != 2)
    assert run(folder) == 2
    assert "1 slice is missing (--fill-gaps interpolates up to 2 in a row)" in capsys.readouterr().err
    assert run(folder, "--fill-gaps") == 0
    assert json.loads((tmp_path / "out/detections.json").read_text())["scan"]["size_xyz"] == [48, 40, 5]


# Bad input


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("ct.nii.gz", b"\x1f\x8b nonsense", "ct.nii.gz: not a readable volume"),
        ("ct.mha", b"ObjectType = Image\nNDims = 3\n", "ct.mha: not a readable volume"),
        ("ct.txt", b"hello", "ct.txt: not a readable volume"),
    ],
)
def test_broken_scan(run, tmp_path, name, content, fault, capsys):
    (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name) == 2
    errors = capsys.readouterr().err
    assert fault in errors and "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_no_input(run, tmp_path, capsys):
    assert run(tmp_path / "absent") == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"{tmp_path / 'absent'}: no such file or folder"


def test_output_is_not_input(run, array, tmp_path, capsys):
    write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert run(tmp_path, output=tmp_path) == 2
    assert "both input and output" in capsys.readouterr().err


def test_the_scan_is_not_replaced(run, array, tmp_path, capsys):
    """Its name is that of an output; other people's files beside it are no report."""
    (tmp_path / "own").mkdir()
    scan = write_volume(tmp_path / "own/detections.nii.gz", array, AFFINE)
    (tmp_path / "own/report.html").write_text("mine")
    before = scan.read_bytes()
    assert run(scan, output=tmp_path / "own") == 2
    assert "the scan itself is detections.nii.gz there" in capsys.readouterr().err
    assert run(tmp_path / "absent.nii.gz", output=tmp_path / "own") == 2
    (tmp_path / "own/broken.nii").write_bytes(b"no scan")
    assert run(tmp_path / "own/broken.nii", output=tmp_path / "own") == 2
    assert scan.read_bytes() == before and (tmp_path / "own/report.html").read_text() == "mine"


def test_the_output_is_a_folder(run, array, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run(write_volume(tmp_path / "ct.nii.gz", array, AFFINE), output=tmp_path / "file") == 2
    assert "is a file: give a folder as --output" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_told_before_the_detection(run, array, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "Predictor", None)
    scan = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert run(scan, output="/proc/no/such/folder") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("/proc/no/such/folder: cannot be written: ")


def test_a_spacing_is_for_png_slices(run, array, tmp_path, capsys):
    scan = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert run(scan, "--spacing", "1", "1", "1") == 2
    assert "a spacing is given, which is for PNG slices" in capsys.readouterr().err


def test_weights_are_needed_unless_told_otherwise(run, array, tmp_path, capsys):
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert run(path, weights="--keep-ids") == 2
    assert "no weights: add MODEL.WEIGHTS" in capsys.readouterr().err
    assert run(path, opts=["MODEL.WEIGHTS", str(tmp_path / "absent.pth")]) == 2
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    assert run(path, opts=["MODEL.WEIGHTS", str(tmp_path / "bad.pth")]) == 2
    errors = capsys.readouterr().err
    assert "absent.pth: no such checkpoint" in errors and "bad.pth: not a file of weights" in errors


def test_weights_are_used_and_named(run, config, array, tmp_path):
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    cfg = config_with(config)
    torch.manual_seed(7)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    assert run(path, output=tmp_path / "random") == 0
    weights = ["MODEL.WEIGHTS", str(tmp_path / "model.pth")]
    assert run(path, output=tmp_path / "loaded", weights="--keep-ids", opts=weights) == 0
    assert not np.allclose(worlds(tmp_path / "random"), worlds(tmp_path / "loaded"))
    provenance = json.loads((tmp_path / "loaded/detections.json").read_text())["provenance"]
    assert provenance["Model"] == "lens_multi.yaml" and provenance["Weights"].startswith("model.pth (sha256 ")


@pytest.mark.parametrize(
    ("opts", "fault"),
    [
        (["MODEL.NO_SUCH_KEY", "1"], "MODEL.NO_SUCH_KEY: no config key"),
        (["INPUT.PIXEL_SPACING", "wide"], "INPUT.PIXEL_SPACING: the configuration cannot be used"),
        (["INPUT.PIXEL_SPACING"], "INPUT.PIXEL_SPACING: a config key without a value"),
    ],
)
def test_bad_configuration(run, tmp_path, opts, fault, capsys):
    assert run(tmp_path, opts=opts) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(fault)


def test_one_expert_alone(run, array, tmp_path):
    assert run(write_volume(tmp_path / "ct.nii.gz", array, AFFINE), opts=["MODEL.LENS.OUTPUT", "lits"]) == 0
    found = detections(tmp_path / "out")
    assert found and all(each["score"] == pytest.approx(each["expert_scores"]["lits"]) for each in found)


def test_false_positive_reduction(run, config, array, tmp_path):
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    cfg = config_with(config, *SMALL_CLASSIFIER)
    torch.manual_seed(0)
    torch.save({"model": build_classifier(cfg).state_dict()}, tmp_path / "fpr.pth")
    assert run(path, opts=[*SMALL_CLASSIFIER, "MODEL.FPR.WEIGHTS", str(tmp_path / "fpr.pth")]) == 0
    for each in detections(tmp_path / "out"):
        detector = 2 * each["score"] - each["fpr_score"]
        assert 0 <= each["fpr_score"] <= 1 and 0 <= detector <= 1
    assert "fpr.pth (sha256 " in (tmp_path / "out/report.html").read_text()
    assert run(path, opts=["MODEL.FPR.WEIGHTS", str(tmp_path / "absent.pth")]) == 2


def test_scores_are_combined_as_the_evaluation_does(run, config, array, tmp_path):
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    cfg = config_with(config, *SMALL_CLASSIFIER)
    torch.save({"model": build_classifier(cfg).state_dict()}, tmp_path / "fpr.pth")
    weights = ["MODEL.FPR.WEIGHTS", str(tmp_path / "fpr.pth")]
    every = ["--max-detections", "10000", "--score-threshold", "0"]
    detectors = {}
    for combine, invert in (
        ("mean", lambda score, fpr: 2 * score - fpr),
        ("mean_log_odds", lambda score, fpr: expit(2 * logit(score) - logit(fpr))),
    ):
        assert run(path, *every, opts=[*SMALL_CLASSIFIER, *weights, "MODEL.FPR.COMBINE", combine]) == 0
        detectors[combine] = sorted(invert(x["score"], x["fpr_score"]) for x in detections(tmp_path / "out"))
    np.testing.assert_allclose(*detectors.values(), atol=1e-5)


# Privacy


def test_nobody_is_named_unless_asked(run, array, tmp_path, capfd):
    elements = {"PatientName": NAME, "PatientID": ID, "SeriesDescription": "Thorax"}
    folder = write_series(tmp_path / "in/Mustermann_Erika/ct", array, AFFINE, **elements)
    broken = write_series(tmp_path / "in/Mustermann_Erika/cut", array, AFFINE, **elements)
    sorted(broken.iterdir())[2].unlink()
    torn = write_series(tmp_path / "in/Mustermann_Erika/torn", array, AFFINE, **elements)
    file = sorted(torn.iterdir())[1]
    file.write_bytes(file.read_bytes()[:-500])
    file.rename(torn / "Mustermann.dcm")
    write_volume(tmp_path / "in/Mustermann.mha", array, AFFINE)
    (tmp_path / "in/Erika.nii.gz").write_bytes(b"\x1f\x8b not a volume")
    write_volume(tmp_path / "in/Erika  Mustermann.mha", array, AFFINE)
    header = (tmp_path / "in/Erika  Mustermann.mha").read_bytes().partition(b"ElementDataFile")[0]
    (tmp_path / "in/Erika  Mustermann.mha").write_bytes(header + b"ElementDataFile = Mustermann.raw\n")
    (tmp_path / "in/x.nrrd").write_text("NRRD0004\nMustermann Erika\n")
    (tmp_path / "in/y.nrrd").write_text("NRRD0004\ntype: Mustermann\ndimension: 3\nsizes: 2 Erika 2\n")
    assert run(tmp_path / "in") == 1
    assert len(list((tmp_path / "out").glob("scan_*"))) == 2
    captured = capfd.readouterr()
    everything = captured.out + captured.err + "".join(str(path) for path in (tmp_path / "out").rglob("*"))
    everything += b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()).decode("latin-1")
    for word in ("Mustermann", "Erika", ID):
        assert word not in everything
    assert run(folder, "--keep-ids", output=tmp_path / "named") == 0
    assert "Mustermann^Erika" in (tmp_path / "named/report.html").read_text()
    document = pydicom.dcmread(tmp_path / "named/detections.dcm")
    assert (str(document.PatientName), document.PatientID) == (NAME, ID)
    run(tmp_path / "in", "--keep-ids", output=tmp_path / "all")
    assert names(tmp_path / "all") == ["Mustermann", "Mustermann_Erika_ct", "scans.csv"]
    table = (tmp_path / "all/scans.csv").read_text()
    assert 'Erika,failed,,"not a readable volume' in table and "data file Mustermann.raw is missing" in table
    assert "no field 'Mustermann Erika' exists" in table


def test_no_copy_of_the_scan_is_left_behind(run, array, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert run(path) == 0
    assert names(tmp_path / "tmp") == []
    assert run(path, opts=["INPUT.CACHE_DIR", str(tmp_path / "cache")]) == 0
    assert len(names(tmp_path / "cache")) == 1


# As a command


def test_command_line(repo_root, config, tmp_path):
    command = ["python", "demo/predict.py", "--config-file", config, "--allow-random-weights"]
    command += ["--input", str(tmp_path / "absent"), "--output", str(tmp_path / "out")]
    failed = run_line(shlex.join(command), repo_root)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1] == f"{tmp_path / 'absent'}: no such file or folder"
