"""Writing a report: which files come to be, and which stay."""

import errno
import io
import json

import pydicom
import pytest
import SimpleITK as sitk

from lens_d2.export import (
    EXPORT_REGISTRY,
    CsvTable,
    JsonFile,
    LabelMap,
    SlicerMarkups,
    StructuredReport,
    Writer,
    remove_report,
    write_report,
)
from lens_d2.io.errors import WriteError
from lens_d2.structures.detections import VolumeDetections

FILES = ["detections.csv", "detections.json", "detections.mrk.json", "detections.nii.gz", "report.html"]


@pytest.fixture(scope="module")
def empty(make_scan):
    scan = make_scan(dicom=True)
    scan.found = VolumeDetections()
    return scan.report()


def test_every_format_is_written_under_its_name(report, tmp_path):
    written = write_report(report, tmp_path / "new" / "folder")
    assert sorted(path.name for path in written.files) == FILES
    assert sorted(path.name for path in (tmp_path / "new/folder").iterdir()) == FILES
    assert all(issubclass(kind, Writer) and kind.purpose for _, kind in EXPORT_REGISTRY)


def test_dicom_input_adds_a_structured_report_and_a_segmentation_of_what_there_is(empty, make_scan, tmp_path):
    written = write_report(make_scan(dicom=True).report(), tmp_path)
    assert {path.name for path in written.files} == {*FILES, "detections.dcm", "detections.seg.dcm"}
    write_report(empty, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "detections.dcm"}


def test_a_writer_that_fails_leaves_the_former_file(report, tmp_path, monkeypatch):
    write_report(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    full = OSError(errno.ENOSPC, "disk full")
    monkeypatch.setattr("lens_d2.io.files.os.replace", lambda *paths: (_ for _ in ()).throw(full))
    with pytest.raises(WriteError, match="cannot be written: disk full"):
        write_report(report, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_required_writer_that_fails_leaves_no_mixture_of_runs(empty, report, tmp_path, monkeypatch):
    write_report(empty, tmp_path)
    monkeypatch.setattr(JsonFile, "render", lambda self, report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(report, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_removed_and_nothing_else(report, tmp_path):
    write_report(report, tmp_path / "out")
    (tmp_path / "out/own.txt").write_text("stays")
    for left in (["own.txt"], []):
        remove_report(tmp_path / "out")
        assert [path.name for path in tmp_path.glob("out/*")] == left
        (tmp_path / "out/own.txt").unlink(missing_ok=True)
    assert not (tmp_path / "out").exists()
    remove_report(tmp_path / "out")


def test_a_full_disk_is_one_line(report, tmp_path, monkeypatch, caplog):
    """The label map finds no room, the smaller formats do."""
    original = LabelMap.render

    def full(self, report):
        raise WriteError("detections.nii.gz", "cannot be written: No space left on device")

    monkeypatch.setattr(LabelMap, "render", full)
    written = write_report(report, tmp_path)
    (line,) = written.warnings
    assert line.startswith("detections.nii.gz (") and line.endswith("cannot be written: No space left on device")
    assert caplog.text == "" and "No space left on device" in (tmp_path / "report.html").read_text()
    monkeypatch.setattr(LabelMap, "render", original)
    assert write_report(report, tmp_path).warnings == []


def test_no_detections(empty, tmp_path):
    assert len(CsvTable().render(empty).splitlines()) == 1
    assert json.loads(JsonFile().render(empty))["detections"] == []
    assert json.loads(SlicerMarkups().render(empty))["markups"] == []
    (tmp_path / "labels.nii.gz").write_bytes(LabelMap().render(empty))
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "labels.nii.gz"))).any()
    document = pydicom.dcmread(io.BytesIO(StructuredReport().render(empty)))
    assert document.Modality == "SR" and b"Number of detections" in StructuredReport().render(empty)
