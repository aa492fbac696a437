"""``detections.nii.gz``: on the scan's voxels, whatever grid they have."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers.scan_files import make_affine

from lens_d2.data.cache import VolumeCache
from lens_d2.export import LabelMap, label_map, make_report
from lens_d2.export.label_map import LPS_TO_RAS, draw_labels
from lens_d2.structures.detections import VolumeDetections


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


@pytest.mark.parametrize("scores", [(0.2, 0.9), (0.9, 0.2)])
def test_the_smaller_box_lies_on_top(make_scan, scores):
    scan = make_scan()
    scan.found = VolumeDetections(np.array([[2, 2, 2, 8, 8, 5], [4, 4, 4, 6, 6, 9.0]]), np.array(scores))
    labels = draw_labels(scan.report(experts=()))
    large, small = (1, 2) if scores[0] > scores[1] else (2, 1)
    assert labels[4, 4, 4] == small and labels[4, 2, 2] == large and labels[9, 5, 5] == small


def test_of_equal_boxes_the_better_score_lies_on_top(make_scan):
    scan = make_scan()
    scan.found = VolumeDetections(np.array([[2, 2, 2, 8, 8, 5.0]] * 2), np.array([0.2, 0.9]))
    assert set(np.unique(draw_labels(scan.report(experts=())))) == {0, 1}


def test_an_axis_too_long_for_nifti_1_makes_nifti_2(make_scan, monkeypatch):
    report = make_scan().report()
    first = nib.Nifti1Image.from_bytes(gzip.decompress(LabelMap().render(report)))
    monkeypatch.setattr(label_map, "LONGEST", max(report.grid.size) - 1)
    second = nib.Nifti2Image.from_bytes(gzip.decompress(LabelMap().render(report)))
    np.testing.assert_array_equal(np.asarray(second.dataobj), np.asarray(first.dataobj))
    np.testing.assert_allclose(second.affine, first.affine, atol=1e-5)


def test_label_map_of_a_tilted_gantry_is_not_straightened(tmp_path):
    affine = make_affine((1.5, 2, 4), origin=(-30, -20, 100))
    affine[1, 2] = 1.2  # every slice a bit further back
    array = np.full((4, 12, 10), 40, np.int16)
    nib.save(nib.Nifti1Image(array.T, LPS_TO_RAS @ affine), tmp_path / "ct.nii.gz")
    record = {"file_name": str(tmp_path / "ct.nii.gz")}
    found = VolumeDetections(np.array([[2.0, 3, 1, 6, 8, 2]]), np.array([0.9]))
    report = make_report("Scan", record, VolumeCache(tmp_path / "cache").open(record), found)
    data = LabelMap().render(report)
    image = nib.Nifti1Image.from_bytes(gzip.decompress(data))
    np.testing.assert_allclose(image.affine, LPS_TO_RAS @ affine, atol=1e-5)
    assert np.argwhere(np.asarray(image.dataobj)).min(axis=0).tolist() == [2, 3, 1]
    assert image.header["descrip"].item().decode() == f"warnings: {len(report.warnings)}, see report.html"
    assert data == LabelMap().render(report)
    (tmp_path / "labels.nii.gz").write_bytes(data)
    labels = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))  # as ITK reads the slices: on their normal
    assert labels.GetSize() == (10, 12, 4)
    np.testing.assert_allclose(np.reshape(labels.GetDirection(), (3, 3)), np.eye(3), atol=1e-5)
    np.testing.assert_allclose(labels.GetSpacing(), [1.5, 2, np.hypot(4, 1.2)], atol=1e-5)
