"""Written scans come back as they were."""

import cv2
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from lens_d2.phantom.space import ScanGrid
from lens_d2.phantom.writers import write_dicom_series, write_image, write_png_slices

HU = np.random.default_rng(0).integers(-1024, 3000, (4, 8, 8)).astype(np.int16)
GRID = ScanGrid((4, 8, 8), (1.5, 1.5, 3.0), (10.0, -20.0, 30.0), (-1, -1, 1))


def test_png_slices(tmp_path):
    write_png_slices(tmp_path / "series", HU, 7)
    names = sorted(path.name for path in (tmp_path / "series").iterdir())
    assert names == ["007.png", "008.png", "009.png", "010.png"]
    picture = cv2.imread(str(tmp_path / "series/009.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture.astype(int) - 32768, HU[2])


@pytest.mark.parametrize("name", ["ct.mhd", "ct.nii", "ct.nii.gz"])
def test_image(tmp_path, name):
    write_image(tmp_path / name, HU, GRID)
    image = sitk.ReadImage(str(tmp_path / name))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), HU)
    place = image.TransformIndexToPhysicalPoint((1, 2, 3))
    np.testing.assert_allclose(place, GRID.to_scan([1, 2, 3]), atol=1e-5)


def test_dicom_series(tmp_path):
    write_dicom_series(tmp_path, HU, GRID, "MED_LYMPH_001", 8_000_000_000)
    files = [pydicom.dcmread(path) for path in sorted(tmp_path.iterdir())]
    assert [file.InstanceNumber for file in files] == [1, 2, 3, 4]
    assert len({file.SeriesInstanceUID for file in files}) == 1
    np.testing.assert_array_equal(files[1].pixel_array.astype(int) - 1024, HU[1])
    np.testing.assert_allclose(np.array(files[3].ImagePositionPatient, float), GRID.to_scan([0, 0, 3]))
