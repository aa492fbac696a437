"""What a scan's warnings, odd headers and failing writers do to the outputs."""

import csv
import io
import json
from dataclasses import replace

import pydicom
import pytest

from lens_d2.export import CsvTable, JsonFile, SlicerMarkups, StructuredReport, write_report
from lens_d2.export.html_report import HtmlReport

WORDS = "values 0 to 255: a window, not Hounsfield units <&>"


@pytest.fixture
def warned(report):
    return replace(report, warnings=(WORDS, "a second line"))


def rows_of(report):
    return list(csv.DictReader(io.StringIO(CsvTable().render(report).decode())))


def test_every_output_tells_the_warnings(warned):
    page = HtmlReport().render(warned).decode()
    assert "a window, not Hounsfield units &lt;&amp;&gt;" in page and 'id="warnings"' in page
    assert json.loads(JsonFile().render(warned))["warnings"] == [WORDS, "a second line"]
    assert {row["warnings"] for row in rows_of(warned)} == {f"{WORDS} | a second line"}
    markups = json.loads(SlicerMarkups().render(warned))
    assert markups["warnings"] == [WORDS, "a second line"]


def test_without_warnings_nothing_is_said(report):
    assert 'id="warnings"' not in HtmlReport().render(report).decode()
    assert json.loads(JsonFile().render(report))["warnings"] == []


def test_a_zero_from_a_misread_scan_does_not_look_like_a_clean_one(warned):
    (row,) = rows_of(replace(warned, detections=[]))
    assert (row["detection"], row["score"]) == ("0", "") and row["warnings"].startswith(WORDS)


def test_an_optional_writer_that_fails_is_a_warning(report, tmp_path, monkeypatch):
    def fail(self, report):
        raise LookupError("Doe^Jane")

    monkeypatch.setattr(SlicerMarkups, "render", fail)
    written = write_report(report, tmp_path)
    told = [line for line in written.warnings if "detections.mrk.json" in line]
    assert len(told) == 1 and "Doe" not in told[0]
    assert json.loads((tmp_path / "detections.json").read_text())["warnings"] == told
    assert not (tmp_path / "detections.mrk.json").exists()


def test_a_required_writer_that_fails_is_an_error(report, tmp_path, monkeypatch):
    monkeypatch.setattr(CsvTable, "render", lambda self, report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(report, tmp_path)


def test_csv_and_json_name_the_image_of_the_key_slice(make_scan, report):
    series = make_scan(dicom=True).report()
    for row, entry in zip(rows_of(series), json.loads(JsonFile().render(series))["detections"], strict=True):
        header = series.headers.slices[int(row["key_slice"])]
        assert row["key_slice_sop_instance_uid"] == header.sop_instance_uid
        assert row["key_slice_instance_number"] and header.sop_instance_uid in json.dumps(entry)
    assert {row["key_slice_sop_instance_uid"] for row in rows_of(report)} == {""}


def document_of(scan, **options) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(StructuredReport().render(scan.report(**options))))


def test_a_report_without_identifiers_is_a_study_of_its_own(make_scan):
    scan = make_scan(dicom=True, PatientID="PID-4711")
    study = scan.report().headers.slices[0].uids["StudyInstanceUID"]
    first, again = document_of(scan), document_of(scan)
    assert first.StudyInstanceUID == again.StudyInstanceUID != study
    kept = document_of(scan, keep_ids=True)
    assert kept.StudyInstanceUID == study and kept.PatientID == "PID-4711"


@pytest.mark.parametrize(
    "elements",
    [
        {"PatientBirthDate": "31.12.1999"},
        {"PatientSex": "female person"},
        {"StudyDate": "19991399", "StudyTime": "morning"},
        {"PatientName": "Doe^" + "J" * 500},
    ],
)
def test_what_dicom_does_not_allow_is_left_empty_and_told(make_scan, elements, tmp_path):
    report = make_scan(dicom=True, **elements).report(keep_ids=True)
    written = write_report(report, tmp_path)
    assert len(written.warnings) == len(elements)
    assert all("left empty in the structured report" in line for line in written.warnings)
    assert (tmp_path / "detections.json").is_file() and (tmp_path / "detections.dcm").is_file()


@pytest.mark.parametrize("charset", ["", "ISO_IR 192", "ISO 2022 IR 87", "GB18030", "ISO_IR_nonsense"])
def test_any_character_set_leaves_the_other_outputs(make_scan, charset, tmp_path):
    report = make_scan(dicom=True, SpecificCharacterSet=charset).report(keep_ids=True)
    names = {path.name for path in write_report(report, tmp_path).files}
    assert {"detections.csv", "detections.json", "report.html"} <= names


def test_slices_that_share_a_uid_have_no_structured_report(make_scan, tmp_path):
    report = make_scan(dicom=True, SOPInstanceUID="1.2.3.4").report()
    written = write_report(report, tmp_path)
    assert not (tmp_path / "detections.dcm").exists()
    assert any("no structured report and no segmentation are written" in line for line in written.warnings)
