"""Choosing detections and describing the scan."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.scan_files import make_affine, write_pngs

from lens_d2.data.cache import VolumeCache
from lens_d2.export import CsvTable, HtmlReport, JsonFile, StructuredReport, make_report
from lens_d2.export.scan_report import FileGrid, select_detections
from lens_d2.io.errors import DataError
from lens_d2.structures.detections import VolumeDetections


def test_best_first_numbered_from_one_with_their_own_slices(report, scan):
    assert [each.number for each in report.detections] == [1, 2, 3]
    assert [each.score for each in report.detections] == [0.92, 0.55, 0.31]
    assert [each.slices for each in report.detections] == [[10], list(range(15, 24)), [2, 3, 4]]
    assert [each.key_slice for each in report.detections] == [10, 19, 3]
    for detection in report.detections:
        assert detection.slice_boxes[:, 0].tolist() == detection.slices
    assert report.detections[0].expert_scores == {"deeplesion": 0.92, "luna": pytest.approx(0.08)}
    assert report.detections[0].size_mm == pytest.approx((1 * 1.5, 8 * 2, 1 * 3))


def test_threshold_and_limit(scan):
    geometry = scan.report().geometry
    kept, left_out = select_detections(scan.found, geometry, ("a", "b"), score_threshold=0.5)
    assert [each.score for each in kept] == [0.92, 0.55] and left_out == 0
    kept, left_out = select_detections(scan.found, geometry, ("a", "b"), 0.2, max_detections=1)
    assert [each.score for each in kept] == [0.92] and left_out == 2
    assert select_detections(VolumeDetections(), geometry, ("a", "b")) == ([], 0)


def test_a_negative_limit_is_refused(scan):
    with pytest.raises(DataError, match="max_detections: is -1; give 0 or more"):
        scan.report(max_detections=-1)


def test_scores_that_are_no_numbers_are_unknown(scan):
    scores = scan.found.expert_scores.copy()
    scores[1, 0] = np.nan
    found = replace(scan.found, expert_scores=scores, fpr_scores=np.array([0.1, np.nan, 0.3]))
    report = make_report("Scan", scan.record, scan.cache.open(scan.record), found, experts=("a", "b"))
    assert report.detections[0].expert_scores == {"b": pytest.approx(0.08)} and report.has_fpr_scores
    assert [each.fpr_score for each in report.detections] == [None, 0.3, 0.1]
    assert HtmlReport().render(report).decode().count('data-value="-1">–</td>') == 2
    assert JsonFile().render(report) and CsvTable().render(report)


def test_fpr_scores_are_carried(scan):
    found = scan.found
    with_fpr = VolumeDetections(
        found.boxes, found.scores, found.slice_boxes, found.slice_detection, fpr_scores=np.array([0.1, 0.2, 0.3])
    )
    kept, _ = select_detections(with_fpr, scan.report().geometry)
    assert [each.fpr_score for each in kept] == [0.2, 0.3, 0.1]
    assert kept[0].expert_scores == {}
    assert not scan.report().has_fpr_scores


def test_slices_go_by_what_viewers_call_them(make_scan, tmp_path):
    dicom = make_scan(dicom=True).report()
    assert dicom.slice_label(0) == "image 1" and dicom.slice_label(23) == "image 24"
    assert make_scan("sagittal", dicom=True).report().slice_label(5) == "slice 5"  # no image is an axial slice
    assert make_scan().report().slice_label(5) == "slice 5"
    folder = write_pngs(tmp_path / "png", np.full((5, 20, 20), 40, np.int16), first=17)
    record = {"file_name": str(folder), "spacing": [1, 1, 5]}
    volume = VolumeCache(tmp_path / "cache").open(record)
    report = make_report("Scan", record, volume, VolumeDetections())
    assert [report.slice_label(z) for z in (0, 4)] == ["file 017", "file 021"]


def test_patient_is_named_only_on_demand(make_scan):
    scan = make_scan(dicom=True, PatientName="Doe^John", PatientID="4711")
    assert scan.report().patient == {}
    assert scan.report(keep_ids=True).patient == {"File": "series", "Patient": "Doe^John", "Patient ID": "4711"}


def test_a_series_that_cannot_be_referred_to_has_no_structured_report(make_scan):
    report = make_scan(dicom=True, StudyInstanceUID=None).report()
    fault = "24 of 24 slices have no valid Study Instance UID"
    assert report.warnings == (f"no structured report and no segmentation are written: {fault}",)
    assert not StructuredReport().applies(report)
    assert report.slice_label(0) == "image 1"


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (1, 0, 2)])
def test_file_grid_permutes_boxes_as_it_permutes_voxels(axes):
    """Axis n of the volume frame is axis axes[n] of the file."""
    matrix = np.zeros((3, 3))
    matrix[range(3), axes] = 1
    sizes = np.array([7, 8, 9])  # of the volume frame
    grid = FileGrid(tuple(int(sizes[axes.index(n)]) for n in range(3)), make_affine((1, 1, 1), matrix))
    assert grid.axes.tolist() == list(axes)
    array = np.zeros(sizes[::-1], bool)
    array[2:5, 1:3, 4:6] = True  # z, y, x
    filed = array.transpose(np.argsort(2 - grid.axes[::-1]))
    assert filed.shape == grid.size[::-1]
    i, j, k = grid.covered(grid.boxes_from_volume([4, 1, 2, 6, 3, 4])[0])
    expected = np.zeros_like(filed)
    expected[k, j, i] = True
    np.testing.assert_array_equal(filed, expected)


def test_a_box_smaller_than_a_voxel_covers_the_nearest_one():
    grid = FileGrid((10, 10, 10), np.eye(4))
    assert grid.covered([3.6, 4.7, 2, 3.9, 4.9, 3]) == (slice(3, 4), slice(4, 5), slice(2, 3))
    assert grid.covered([-2, 8.2, 9, 1, 12, 12]) == (slice(0, 1), slice(8, 10), slice(9, 10))
