"""All outputs put the same detections at the same place in the patient, whatever grid the scan has."""

import csv
import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from lens_d2.export import CsvTable, JsonFile, LabelMap, SlicerMarkups, StructuredReport

GRIDS = ["straight", "flipped", "feet first", "sagittal", "oblique", "steep"]


def hull(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def grid_of(ends) -> np.ndarray:
    """(8, 3) corners of a box from its (2, 3) ends."""
    return np.stack(np.meshgrid(*np.asarray(ends).T, indexing="ij"), axis=-1).reshape(8, 3)


def world_of_csv(report) -> np.ndarray:
    rows = csv.DictReader(io.StringIO(CsvTable().render(report).decode()))
    keys = [f"lps_{axis}_{end}_mm" for end in ("min", "max") for axis in "xyz"]
    return np.array([[float(row[key]) for key in keys] for row in rows])


def world_of_json(report) -> np.ndarray:
    boxes = [each["world_box_lps_mm"] for each in json.loads(JsonFile().render(report))["detections"]]
    return np.array([[box[end][axis] for end in ("min", "max") for axis in "xyz"] for box in boxes])


def world_of_markups(report) -> np.ndarray:
    boxes = []
    for roi in json.loads(SlicerMarkups().render(report))["markups"]:
        axes, half = np.reshape(roi["orientation"], (3, 3)), np.array(roi["size"]) / 2
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
        assert np.linalg.det(axes) == pytest.approx(1)
        boxes.append(hull(roi["center"] + grid_of([-half, half]) @ axes.T))
    return np.array(boxes)


def world_of_labels(report, tmp_path) -> np.ndarray:
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(LabelMap().render(report))
    image = sitk.ReadImage(str(path))
    labels = sitk.GetArrayFromImage(image)
    boxes = []
    for number in range(1, labels.max() + 1):
        indices = np.argwhere(labels == number)[:, ::-1]
        corners = grid_of([indices.min(axis=0) - 0.5, indices.max(axis=0) + 0.5])
        world = [image.TransformContinuousIndexToPhysicalPoint(corner.tolist()) for corner in corners]
        boxes.append(hull(np.array(world)))
    return np.array(boxes)


def regions_of(item):
    """(points, UID of the image) of every region in a content tree."""
    if item.get("ValueType") == "SCOORD":
        (image,) = item.ContentSequence
        yield np.reshape(item.GraphicData, (-1, 2)), image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    for child in item.get("ContentSequence", []):
        if item.get("ValueType") != "SCOORD":
            yield from regions_of(child)


def groups_of(document) -> list:
    """The measurement groups of a TID 1500 document, one a detection."""
    (measurements,) = [c for c in document.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "126010"]
    return list(measurements.ContentSequence)


def world_of_structured_report(report, folder) -> np.ndarray:
    slices = {data.SOPInstanceUID: data for data in map(pydicom.dcmread, folder.glob("*.dcm"))}
    document = pydicom.dcmread(io.BytesIO(StructuredReport().render(report)))
    half_interval = np.linalg.norm(report.grid.affine[:3, 2]) / 2
    boxes = []
    for group in groups_of(document):
        corners = []
        for points, uid in regions_of(group):
            data = slices[uid]
            along = np.reshape(data.ImageOrientationPatient, (2, 3)).astype(float)
            step = np.array(data.PixelSpacing, float)[::-1]  # mm between columns, between rows
            flat = (points - 0.5) * step @ along + np.array(data.ImagePositionPatient, float)
            half = np.cross(*along) * half_interval
            corners += [flat - half, flat + half]
        boxes.append(hull(np.concatenate(corners)))
    return np.array(boxes)


@pytest.mark.parametrize("grid", GRIDS)
def test_nifti(make_scan, grid, tmp_path):
    scan = make_scan(grid)
    report = scan.report()
    for world in (world_of_csv, world_of_json, world_of_markups):
        np.testing.assert_allclose(world(report), scan.world, atol=2e-3, err_msg=world.__name__)
    np.testing.assert_allclose(world_of_labels(report, tmp_path), scan.world, atol=2e-3)


@pytest.mark.parametrize("grid", GRIDS)
def test_dicom(make_scan, grid, tmp_path):
    scan = make_scan(grid, dicom=True)
    report = scan.report()
    for world in (world_of_csv, world_of_json, world_of_markups):
        np.testing.assert_allclose(world(report), scan.world, atol=2e-3, err_msg=world.__name__)
    np.testing.assert_allclose(world_of_labels(report, tmp_path), scan.world, atol=2e-3)


@pytest.mark.parametrize("grid", GRIDS)
def test_structured_report(make_scan, grid):
    scan = make_scan(grid, dicom=True)
    np.testing.assert_allclose(
        world_of_structured_report(scan.report(), Path(scan.record["file_name"])), scan.world, atol=2e-3
    )


def centres(world: np.ndarray) -> np.ndarray:
    return (world[:, :3] + world[:, 3:]) / 2


@pytest.mark.parametrize("dicom", [False, True])
def test_tilted_gantry(make_scan, dicom, tmp_path):
    """Boxes of formats without slanted ones have the same centres."""
    scan = make_scan("tilted", dicom=dicom)
    report, wanted = scan.report(), centres(scan.world)
    for world in (world_of_csv, world_of_json):
        np.testing.assert_allclose(world(report), scan.world, atol=2e-3, err_msg=world.__name__)
    np.testing.assert_allclose(centres(world_of_markups(report)), wanted, atol=2e-3)
    (tmp_path / "labels.nii.gz").write_bytes(LabelMap().render(report))
    labels = nib.load(tmp_path / "labels.nii.gz")
    for number, centre in enumerate(wanted, 1):
        indices = np.argwhere(np.asarray(labels.dataobj) == number)
        middle = (indices.min(axis=0) + indices.max(axis=0)) / 2
        np.testing.assert_allclose((labels.affine @ [*middle, 1])[:3] * [-1, -1, 1], centre, atol=2e-3)
    if dicom:
        found = world_of_structured_report(report, Path(scan.record["file_name"]))
        np.testing.assert_allclose(centres(found), wanted, atol=2e-3)
