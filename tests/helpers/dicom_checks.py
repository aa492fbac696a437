"""Reading DICOM and comparing, for the tests of it."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from helpers.scan_files import make_affine
from lens_d2.data.volume import read_header, read_volume
from lens_d2.io.errors import DataError

AFFINE = make_affine((0.7, 0.8, 2.5), origin=(-100, 50, -300))
SHAPE = (7, 9, 11)  # k, j, i


def make_hu() -> np.ndarray:
    """(k, j, i) int16."""
    return np.random.default_rng(0).integers(-1024, 3071, SHAPE).astype(np.int16)


def fault(source, **options) -> str:
    """Error of reading a bad source: one line that names a file or folder."""
    with pytest.raises(DataError) as caught:
        read_volume(source, **options)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(caught.value.path)
    return str(caught.value)


def check(source, hu, affine=AFFINE, warning=None, **options):
    """Read a source: these voxels at their places, and a first warning with these words, or no warning."""
    volume = read_volume(source, **options)
    np.testing.assert_array_equal(volume.array, hu)
    np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-6)
    assert volume.geometry == read_header(source, **options)
    assert bool(volume.warnings) == (warning is not None), volume.warnings
    assert warning is None or warning in volume.warnings[0]


def leave_out(*places):
    """A ``change`` of write_series that leaves slices out."""
    return lambda k, data: k not in places


def files_of(folder) -> list:
    """The files of a series from the lowest slice to the highest."""
    return sorted(folder.iterdir(), key=lambda file: pydicom.dcmread(file).InstanceNumber)


def with_gdcm(file, data, compressor):
    """Write a slice with pixels that SimpleITK has compressed."""
    image = sitk.GetImageFromArray(data.pixel_array)
    path = file.parent.parent / "compressed.dcm"
    sitk.WriteImage(image, str(path), useCompression=True, compressor=compressor)
    compressed = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
    data.PixelData = compressed.PixelData
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.save_as(file, enforce_file_format=True)


def move(data, offset):
    position = np.array(data.ImagePositionPatient, float) + offset
    data.ImagePositionPatient = [f"{x:.10g}"[:16] for x in position]


# Orders of frames in a file.
ORDERS = {
    "up": [0, 1, 2, 3, 4, 5, 6],
    "down": [6, 5, 4, 3, 2, 1, 0],
    "shuffled": [3, 0, 6, 2, 5, 1, 4],
    "interleaved": [0, 2, 4, 6, 1, 3, 5],
}
