"""What stands in each file, and how files come to be."""

import csv
import io
import json
import re

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom import sr

from lens_d2.export import (
    EXPORT_REGISTRY,
    CsvTable,
    JsonFile,
    LabelMap,
    SlicerMarkups,
    StructuredReport,
    Writer,
    write_report,
)
from lens_d2.io.errors import WriteError
from lens_d2.structures.detections import VolumeDetections
from lens_d2.visualization.planes import score_color

FILES = ["detections.csv", "detections.json", "detections.mrk.json", "detections.nii.gz", "report.html"]


@pytest.fixture(scope="module")
def empty(make_scan):
    scan = make_scan(dicom=True)
    scan.found = VolumeDetections()
    return scan.report()


@pytest.fixture(scope="module")
def series(make_scan):
    return make_scan(dicom=True, PatientName="Doe^Jöhn", PatientID="PID-4711", SpecificCharacterSet="ISO_IR 192")


# All writers


def test_every_format_is_written_under_its_name(report, tmp_path):
    written = write_report(report, tmp_path / "new" / "folder")
    assert sorted(path.name for path in written.files) == FILES
    assert sorted(path.name for path in (tmp_path / "new/folder").iterdir()) == FILES
    assert all(issubclass(kind, Writer) and kind.purpose for _, kind in EXPORT_REGISTRY)


def test_dicom_input_adds_a_structured_report(empty, tmp_path):
    assert sorted(path.name for path in write_report(empty, tmp_path).files) == sorted([*FILES, "detections.dcm"])


def test_a_writer_that_fails_leaves_the_former_file(report, tmp_path, monkeypatch):
    write_report(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("lens_d2.io.files.os.replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(WriteError, match="cannot be written: disk full"):
        write_report(report, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_detections(empty, tmp_path):
    assert len(CsvTable().render(empty).splitlines()) == 1
    assert json.loads(JsonFile().render(empty))["detections"] == []
    assert json.loads(SlicerMarkups().render(empty))["markups"] == []
    (tmp_path / "labels.nii.gz").write_bytes(LabelMap().render(empty))
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "labels.nii.gz"))).any()
    document = pydicom.dcmread(io.BytesIO(StructuredReport().render(empty)))
    assert document.Modality == "SR" and b"Number of detections" in StructuredReport().render(empty)


# csv and json


def test_csv_names_axes_and_conventions_in_its_header(report):
    rows = list(csv.DictReader(io.StringIO(CsvTable().render(report).decode())))
    assert list(rows[0]) == (
        ["detection", "score", "probability", "operating_point_fp_per_volume", "fpr_score"]
        + ["score_deeplesion", "score_luna"]
        + ["x1_pixel_edge", "y1_pixel_edge", "z1_first_slice"]
        + ["x2_pixel_edge", "y2_pixel_edge", "z2_last_slice"]
        + ["lps_x_min_mm", "lps_y_min_mm", "lps_z_min_mm", "lps_x_max_mm", "lps_y_max_mm", "lps_z_max_mm"]
        + ["diameter_x_mm", "diameter_y_mm", "diameter_z_mm", "key_slice", "num_slices", "slices"]
        + ["key_slice_instance_number", "key_slice_sop_instance_uid", "warnings"]
    )
    third = rows[2]
    voxels = [float(third[key]) for key in list(third)[7:13]]
    assert voxels == [5, 6, 2, 10, 10, 4]
    assert [float(third[f"diameter_{axis}_mm"]) for axis in "xyz"] == [7.5, 8, 9]
    assert (third["score"], third["score_luna"], third["fpr_score"]) == ("0.310000", "0.690000", "")
    assert (third["key_slice"], third["num_slices"], third["slices"]) == ("3", "3", "2 3 4")


def test_json_says_what_its_numbers_mean(report):
    content = json.loads(JsonFile().render(report))
    assert content["format_version"] == 1 and "Not a medical device" in content["notice"]
    assert set(content["conventions"]) >= {"voxel_box", "world_box_lps_mm", "slice_boxes", "diameters_mm", "score"}
    assert content["scan"]["size_xyz"] == [40, 36, 24] and content["scan"]["name"] == "Scan"
    assert content["scan"]["spacing_xyz_mm"] == pytest.approx([1.5, 2, 3])
    assert content["scan"]["file_axis_of_xyz"] == [0, 1, 2]
    assert content["provenance"] == {"Model": "test.yaml", "Weights": "model.pth"}
    best = content["detections"][0]
    assert best["voxel_box"] == {"x1": 20, "y1": 20, "z1": 10, "x2": 21, "y2": 28, "z2": 10}
    assert best["slices"] == [10] and best["fpr_score"] is None
    assert best["expert_scores"] == {"deeplesion": 0.92, "luna": pytest.approx(0.08)}
    (slice_box,) = best["slice_boxes"]
    assert slice_box == {"slice": 10, "x1": 20, "y1": 20, "x2": 21, "y2": 28, "score": 0.92}
    assert "patient" not in content["scan"]


# 3D Slicer


def test_markups_follow_schema_1_0_3(report):
    content = json.loads(SlicerMarkups().render(report))
    assert re.search(r"markups-schema-v1\.0\.3\.json#$", content["@schema"])
    names = []
    for roi, detection in zip(content["markups"], report.detections, strict=True):
        assert (roi["type"], roi["roiType"], roi["coordinateSystem"]) == ("ROI", "Box", "LPS")
        assert roi["coordinateUnits"] == "mm" and roi["insideOut"] is False
        assert [len(roi[key]) for key in ("center", "orientation", "size")] == [3, 9, 3]
        assert all(isinstance(value, float) for key in ("center", "orientation", "size") for value in roi[key])
        (point,) = roi["controlPoints"]
        assert point["position"] == roi["center"] and point["positionStatus"] == "defined"
        assert roi["display"]["color"] == pytest.approx(score_color(detection.score), abs=1e-4)
        names.append(roi["name"])
    assert names == ["Detection 1 (0.92)", "Detection 2 (0.55)", "Detection 3 (0.31)"]


def test_markups_of_a_tilted_gantry_enclose_the_detection(report):
    from dataclasses import replace

    from lens_d2.export.slicer_markups import oriented_box

    affine = np.array(report.geometry.affine)
    affine[1, 2] = 0.8  # every slice a bit further back
    geometry = replace(report.geometry, affine=affine)
    detection = report.detections[0]
    world = geometry.boxes3d_to_world([detection.box])[0]
    center, orientation, size = oriented_box(replace(detection, world_box=tuple(world)), geometry)
    np.testing.assert_array_equal(orientation, np.eye(3))
    np.testing.assert_allclose(np.concatenate([center - size / 2, center + size / 2]), world)


# Label map


@pytest.mark.parametrize("grid", ["straight", "flipped", "sagittal", "oblique"])
def test_label_map_lies_on_the_voxels_of_the_scan(make_scan, grid, tmp_path):
    scan = make_scan(grid)
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(LabelMap().render(scan.report()))
    labels, ct = sitk.ReadImage(str(path)), sitk.ReadImage(scan.record["file_name"])
    assert labels.GetSize() == ct.GetSize() and labels.GetPixelID() == sitk.sitkUInt16
    np.testing.assert_allclose(labels.GetSpacing(), ct.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(labels.GetDirection(), ct.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(labels.GetOrigin(), ct.GetOrigin(), atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels) > 0, sitk.GetArrayFromImage(ct) == 900)


def test_the_better_score_wins_where_boxes_overlap(make_scan):
    from lens_d2.export.label_map import draw_labels

    scan = make_scan()
    scan.found = VolumeDetections(np.array([[2, 2, 2, 8, 8, 5], [4, 4, 4, 6, 6, 9.0]]), np.array([0.2, 0.9]))
    labels = draw_labels(scan.report(experts=()))
    assert labels[4, 4, 4] == 1 and labels[4, 2, 2] == 2 and labels[9, 5, 5] == 1


# DICOM SR


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
