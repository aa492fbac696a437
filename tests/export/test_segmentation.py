"""``detections.seg.dcm``: boxes on the scan's own voxels, small, and careful with names."""

import io
from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest

from lens_d2.export import SegmentationFile, StructuredReport, make_report
from lens_d2.structures.detections import VolumeDetections


@pytest.fixture(scope="module")
def series(make_scan):
    scan = make_scan(dicom=True, PatientName="Doe^Jöhn", PatientID="PID-4711", SpecificCharacterSet="ISO_IR 192")
    scan.found.boxes[0] = scan.found.boxes[2] + [2, 1, 1, 1, 1, 0]  # overlaps another box
    return scan


def read(report) -> highdicom.seg.Segmentation:
    return highdicom.seg.segread(io.BytesIO(SegmentationFile().render(report)))


GRIDS = ["straight", "flipped", "feet first", "sagittal", "oblique", "steep", "tilted"]


@pytest.mark.parametrize("direction", GRIDS)
def test_every_frame_shows_a_box_on_the_image_that_it_names(make_scan, direction):
    report = make_scan(direction, dicom=True).report()
    document = read(report)
    assert (document.Columns, document.Rows) == report.grid.size[:2]
    uids = [header.sop_instance_uid for header in report.headers.slices]
    drawn = np.zeros((len(report.detections), *report.grid.size[::-1]), bool)
    for pixels, frame in zip(document.pixel_array, document.PerFrameFunctionalGroupsSequence, strict=True):
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        k = uids.index(source.ReferencedSOPInstanceUID)
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(position, (report.grid.affine @ [0, 0, k, 1])[:3], atol=1e-4)
        assert pixels.any()  # no empty frame
        drawn[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1, k] = pixels
    for mask, detection in zip(drawn, report.detections, strict=True):
        expected = np.zeros_like(mask)
        i, j, k = report.grid.covered(report.grid.boxes_from_volume(detection.box)[0])
        expected[k, j, i] = True
        np.testing.assert_array_equal(mask, expected)


def test_segments_say_that_they_are_boxes(series):
    report = series.report()
    document = read(report)
    assert document.SegmentationType == "BINARY" and document.SegmentsOverlap == "YES"
    assert [segment.SegmentLabel for segment in document.SegmentSequence] == [
        f"Detection {each.number}, box" for each in report.detections
    ]
    assert all("not an outline" in segment.SegmentDescription for segment in document.SegmentSequence)
    assert "not outlines of lesions" in document.ImageComments


def test_one_segment_alone(series):
    report = series.report(max_detections=1)
    document = read(report)
    assert document.NumberOfFrames == len(report.detections[0].slices) and document.SegmentsOverlap == "NO"


def test_it_takes_a_bit_for_each_voxel_of_slices_with_a_box(series):
    report = series.report()
    frames = sum(len(each.slices) for each in report.detections)
    document = read(report)
    assert document.NumberOfFrames == frames and len(document.PixelData) <= frames * 36 * 40 / 8 + 2


def test_the_patient_is_named_only_on_demand(series):
    plain = SegmentationFile().render(series.report())
    document = pydicom.dcmread(io.BytesIO(plain))
    assert not document.PatientName and not document.PatientID
    assert b"PID-4711" not in plain and "Jöhn".encode() not in plain and b"Doe" not in plain
    kept = pydicom.dcmread(io.BytesIO(SegmentationFile().render(series.report(keep_ids=True))))
    assert (str(kept.PatientName), kept.PatientID) == ("Doe^Jöhn", "PID-4711")


def test_it_is_in_the_study_of_the_structured_report(series):
    for keep_ids in (False, True):
        report = series.report(keep_ids=keep_ids)
        mask = pydicom.dcmread(io.BytesIO(SegmentationFile().render(report)))
        document = pydicom.dcmread(io.BytesIO(StructuredReport().render(report)))
        assert mask.StudyInstanceUID == document.StudyInstanceUID
        assert ("ReferencedSeriesSequence" in mask) is keep_ids
        (header, *_) = report.headers.slices
        assert (mask.StudyInstanceUID == header.uids["StudyInstanceUID"]) is keep_ids


def test_warnings_are_among_the_comments(series):
    report = replace(series.report(), warnings=("values 0 to 255: a window",))
    assert "values 0 to 255: a window" in read(report).ImageComments


def test_only_dicom_series_with_a_place_and_a_detection_have_one(make_scan, report):
    assert not SegmentationFile().applies(report)
    series = make_scan(dicom=True, FrameOfReferenceUID="")
    assert not SegmentationFile().applies(series.report())
    assert series.report().warnings == ("no segmentation is written: the slices share no Frame of Reference UID",)
    series = make_scan(dicom=True)
    assert SegmentationFile().applies(series.report())
    volume = series.cache.open(series.record)
    assert not SegmentationFile().applies(make_report("Scan", series.record, volume, VolumeDetections()))
