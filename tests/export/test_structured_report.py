"""``detections.dcm``: the template, its measurements, and names of patients and experts."""

import io
from dataclasses import replace

import pydicom
import pytest
from highdicom import sr

from lens_d2.export import StructuredReport
from lens_d2.export.structured_report import expert_code
from lens_d2.structures.detections import VolumeDetections


@pytest.fixture(scope="module")
def series(make_scan):
    return make_scan(dicom=True, PatientName="Doe^Jöhn", PatientID="PID-4711", SpecificCharacterSet="ISO_IR 192")


def test_structured_report_follows_tid_1500_and_refers_to_the_series(series):
    report = series.report()
    document = pydicom.dcmread(io.BytesIO(StructuredReport().render(report)))
    assert document.SOPClassUID.name == "Comprehensive SR Storage"
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (document.PreliminaryFlag, document.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    (study,) = document.PertinentOtherEvidenceSequence
    first = report.headers.slices[0].uids
    assert study.StudyInstanceUID == first["StudyInstanceUID"]
    (evidence,) = study.ReferencedSeriesSequence
    assert evidence.SeriesInstanceUID == first["SeriesInstanceUID"] != document.SeriesInstanceUID
    covered = {report.headers.slices[z].sop_instance_uid for each in report.detections for z in each.slices}
    assert {item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence} >= covered


def test_structured_report_measures_every_detection(series):
    report = series.report()
    document = sr.ComprehensiveSR.from_dataset(pydicom.dcmread(io.BytesIO(StructuredReport().render(report))))
    groups = document.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["Detection 1", "Detection 2", "Detection 3"]
    for group, detection in zip(groups, report.detections, strict=True):
        measured = {each.name.meaning: (each.value, each.unit.value) for each in group.get_measurements()}
        assert measured["Detection score (0 to 1)"] == (pytest.approx(detection.score), "1")
        assert measured["Score of the expert luna"] == (pytest.approx(detection.expert_scores["luna"]), "1")
        for axis, side in zip("xyz", detection.size_mm, strict=True):
            assert measured[f"Extent of the box along {axis}"] == (pytest.approx(side, abs=1e-3), "mm")
        assert len(group.roi) == len(detection.slices)
        assert group.finding_type.meaning == "Lesion"


def test_structured_report_names_the_patient_only_on_demand(series):
    plain = StructuredReport().render(series.report())
    document = pydicom.dcmread(io.BytesIO(plain))
    assert not document.PatientName and not document.PatientID
    assert b"PID-4711" not in plain and "Jöhn".encode() not in plain
    document = pydicom.dcmread(io.BytesIO(StructuredReport().render(series.report(keep_ids=True))))
    assert (str(document.PatientName), document.PatientID) == ("Doe^Jöhn", "PID-4711")


def test_warnings_are_comments(series):
    report = replace(series.report(), warnings=("values 0 to 255: a window", "a second line"))
    for each in (report, replace(report, detections=[])):
        document = pydicom.dcmread(io.BytesIO(StructuredReport().render(each)))
        told = [item.TextValue for part in document.ContentSequence for item in part.get("ContentSequence", [])
                if item.ValueType == "TEXT"]  # fmt: skip
        assert set(report.warnings) <= set(told)


def test_a_box_between_or_beyond_slices_lies_on_the_nearest(make_scan):
    scan = make_scan(dicom=True)
    scan.found.boxes[:, [2, 5]] = [[3.2, 3.4], [-0.4, -0.3], [23.1, 23.4]]
    scan.found = VolumeDetections(scan.found.boxes, scan.found.scores)
    report = scan.report()
    assert [each.slices for each in report.detections] == [[0], [23], [3]]
    assert [each.key_slice for each in report.detections] == [0, 23, 3]
    assert StructuredReport().render(report)


@pytest.mark.parametrize("name", ["luna", "läsion", "sixteen letters!"])
def test_the_code_of_an_expert_is_its_name(name):
    code = expert_code(name)
    assert (code.value, code.meaning) == (name, f"Score of the expert {name}")


def test_codes_of_long_names_fit_and_differ():
    codes = [expert_code(f"mediastinal_lymph_nodes_of_{place}" + "_and_more" * 9) for place in ("NIH", "Basel")]
    codes.append(expert_code("C:\\lesions"))
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 and "\\" not in code.value for code in codes)
    assert len({code.value for code in codes}) == 3
