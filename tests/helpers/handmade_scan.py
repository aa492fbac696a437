"""A scan on any grid with detections put in by hand, and the reports made of it."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest

from helpers.scan_files import make_affine, write_series, write_volume
from lens_d2.data.cache import PreprocessParams, VolumeCache
from lens_d2.export import make_report
from lens_d2.structures.detections import VolumeDetections

SIZE = np.array([40, 36, 24])  # along the body's x, y, z
SPACING = np.array([1.5, 2.0, 3.0])
EXPERTS = ("deeplesion", "luna")
# First and last voxel, both included, along x, y, z.
VOXELS = np.array([[[5, 6, 2], [9, 9, 4]], [[20, 20, 10], [20, 27, 10]], [[30, 3, 15], [35, 8, 23]]])
SCORES = np.array([0.31, 0.92, 0.55])
COS, SIN = np.cos(np.radians(44)), np.sin(np.radians(44))
DIRECTIONS = {
    "straight": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),  # as NIfTI files mostly are
    "feet first": np.diag([1.0, -1.0, -1.0]),
    "sagittal": np.array(
        [[0, 0, -1], [1, 0, 0], [0, -1, 0]], float
    ),  # i to the back, j to the feet, k to the right
    "oblique": np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]),
    "steep": np.array([[1, 0, 0], [0, COS, -SIN], [0, SIN, COS]]),
    "tilted": np.array([[1, 0, 0], [0, 0.96, 0], [0, 0.28, 1]]),  # the gantry, and the table moves along z
}


@dataclass
class HandmadeScan:
    """A scan file whose lesions are bright blocks.

    Attributes:
        record: to read it. found: the detections, in the volume frame. world: (n, 6) their true world boxes, best
            score first, computed from the file's grid alone.
    """

    record: dict
    found: VolumeDetections
    world: np.ndarray
    cache: VolumeCache

    def report(self, **options):
        volume = self.cache.open(self.record)
        return make_report("Scan", self.record, volume, self.found, **{"experts": EXPERTS, **options})


@pytest.fixture(scope="session")
def make_scan(tmp_path_factory):
    def make(direction="straight", dicom=False, **elements) -> HandmadeScan:
        folder = tmp_path_factory.mktemp("scan")
        matrix = DIRECTIONS[direction]
        axes = np.abs(matrix).argmax(axis=0)  # the body's axis along each of the file's
        affine = make_affine(SPACING[axes], matrix, (-30.0, 12.0, 400.0))
        array = body()
        for low, high in VOXELS:
            array[tuple(slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))] = 900
        array = array.transpose([2 - axis for axis in axes[::-1]])
        if dicom:
            path = write_series(folder / "series", array, affine, **elements)
        elif direction == "tilted":  # ITK would straighten it
            path = folder / "scan.nii.gz"
            nib.save(nib.Nifti1Image(array.T, np.diag([-1, -1, 1, 1]) @ affine), path)
        else:
            path = write_volume(folder / "scan.nii.gz", array, affine)
        cache = VolumeCache(folder / "cache", PreprocessParams(pixel_spacing=1.0))
        return HandmadeScan({"file_name": str(path)}, detections(), true_world(affine, axes), cache)

    return make


@pytest.fixture(scope="session")
def scan(make_scan):
    return make_scan()


@pytest.fixture(scope="session")
def report(scan):
    return scan.report(provenance={"Model": "test.yaml", "Weights": "model.pth"})


def body() -> np.ndarray:
    """(z, y, x) HU: soft tissue in air."""
    array = np.full(SIZE[::-1], -1000, np.int16)
    array[:, 2:34, 2:38] = np.random.default_rng(0).normal(40, 10, (24, 32, 36)).astype(np.int16)
    return array


def detections() -> VolumeDetections:
    low, high = VOXELS[:, 0].astype(float), VOXELS[:, 1].astype(float)
    boxes = np.column_stack([low, high[:, 0] + 1, high[:, 1] + 1, high[:, 2]])
    slice_boxes, owners = [], []
    for number, (x1, y1, z1, x2, y2, z2) in enumerate(boxes):
        for z in range(int(z1), int(z2) + 1):
            slice_boxes.append([z, x1, y1, x2, y2, SCORES[number] - 0.01 * abs(z - (z1 + z2) / 2)])
            owners.append(number)
    experts = np.column_stack([SCORES, 1 - SCORES])
    return VolumeDetections(boxes, SCORES.copy(), np.array(slice_boxes), np.array(owners), experts)


def true_world(affine: np.ndarray, axes: np.ndarray) -> np.ndarray:
    boxes = []
    for low, high in VOXELS[np.argsort(-SCORES)]:
        ends = np.array([low[axes] - 0.5, high[axes] + 0.5])
        corners = np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(8, 3)
        world = corners @ affine[:3, :3].T + affine[:3, 3]
        boxes.append([*world.min(axis=0), *world.max(axis=0)])
    return np.array(boxes)
