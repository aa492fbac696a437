"""Folders of PNG slices, as DeepLesion has them."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.dicom_checks import fault
from helpers.scan_files import make_slice, write_pngs
from pydicom import uid

from lens_d2.data.volume import read_header, read_volume
from lens_d2.io.errors import DataError

SPACING = (0.7, 0.8, 2.5)


@pytest.fixture
def hu() -> np.ndarray:
    """(z, y, x) int16."""
    return np.random.default_rng(0).integers(-1024, 3071, (6, 9, 11)).astype(np.int16)


def test_png_folder(tmp_path, hu):
    folder = write_pngs(tmp_path / "000001_01_01", hu, first=7)
    volume = read_volume(folder, spacing=[0.7, 0.8, 2.5])
    np.testing.assert_array_equal(volume.array, hu)
    assert volume.geometry == read_header(folder, spacing=[0.7, 0.8, 2.5])
    np.testing.assert_allclose(volume.geometry.affine, np.diag([0.7, 0.8, 2.5, 1]))


def test_png_folder_with_negative_spacing(tmp_path, hu):
    """In z it says that the slices run towards the feet; within a slice it would swap sides."""
    folder = write_pngs(tmp_path / "000001_01_01", hu, first=7)
    with pytest.raises(DataError, match="a spacing of -0.7 x 0.8 mm, which is negative"):
        read_header(folder, spacing=[-0.7, 0.8, 2.5])


def test_png_folder_part_of_the_slices(tmp_path, hu):
    folder = write_pngs(tmp_path / "000001_01_01", hu, first=7)
    record = {"file_name": folder, "first_slice": 9, "num_slices": 3, "spacing": SPACING}
    np.testing.assert_array_equal(read_volume(record).array, hu[2:5])
    assert read_header(record).size == (11, 9, 3)


def test_png_folder_known_gap_takes_the_nearest_slice(tmp_path, hu):
    folder = write_pngs(tmp_path / "000001_01_01", hu, first=7)
    for number in (7, 9, 10):
        (folder / f"{number:03d}.png").unlink()
    record = {"file_name": folder, "first_slice": 7, "num_slices": 6, "spacing": SPACING}
    np.testing.assert_array_equal(read_volume(record, missing_slices=[0, 2, 3]).array, hu[[1, 1, 1, 4, 4, 5]])


@pytest.mark.parametrize(
    "options, direction",
    [
        ({"spacing": [1, 1, -5]}, -1),
        ({"spacing": [1, 1, 5], "z_direction": -1}, -1),
        ({"spacing": [1, 1, -5], "z_direction": 1}, 1),
    ],
)
def test_png_folder_negative_interval_runs_to_the_feet(tmp_path, hu, options, direction):
    geometry = read_header(write_pngs(tmp_path / "ct", hu), **options)
    assert geometry.slice_interval == 5
    assert geometry.flips[2] == (direction < 0)
    np.testing.assert_array_equal(read_volume(tmp_path / "ct", **options).array, hu)


def test_folder_without_slices(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    assert "neither PNG slices nor a DICOM series" in fault(tmp_path)
    (tmp_path / "overview.png").write_bytes(b"")
    assert "neither PNG slices nor a DICOM series" in fault(tmp_path)


@pytest.mark.parametrize("spacing", [[0, 1, 2], [1, np.nan, 2], [1, 1, np.nan], [1, 1, 0]])
def test_png_spacing_of_zero_or_nan(tmp_path, hu, spacing):
    assert "the voxel spacing is" in fault(write_pngs(tmp_path / "ct", hu), spacing=spacing)


def test_png_spacing_not_given(tmp_path, hu):
    assert "PNG slices carry no spacing" in fault(write_pngs(tmp_path / "ct", hu))
    assert "PNG slices carry no spacing" in fault(tmp_path / "ct", spacing=[1, 1, None])


def test_missing_slice(tmp_path, hu):
    folder = write_pngs(tmp_path / "ct", hu)
    (folder / "003.png").unlink()
    assert fault(folder, spacing=SPACING) == f"{folder}: missing slices: 003.png"
    assert "missing slices: 007.png, 008.png" in fault(folder, spacing=SPACING, first_slice=5, num_slices=4)


def test_a_path_that_is_no_unicode(tmp_path, hu):
    """As archives of old Windows unpack; OpenCV's own reader ends the process on it."""
    folder = write_pngs(tmp_path / "ct", hu)
    other = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    folder.rename(other)
    assert np.array_equal(read_volume(other, spacing=SPACING).array, hu)


@pytest.mark.parametrize("keep", [0, 20, 100])
def test_unreadable_slice(tmp_path, hu, keep):
    file = write_pngs(tmp_path / "ct", hu) / "003.png"
    file.write_bytes(file.read_bytes()[:keep])
    assert fault(tmp_path / "ct", spacing=SPACING).startswith(f"{file}: ")


@pytest.mark.parametrize(
    "picture, kind",
    [
        (np.zeros((9, 11), np.uint8), "L"),
        (np.zeros((9, 11, 3), np.uint8), "RGB"),
        (np.zeros((9, 11, 3), np.uint16), "RGB"),
    ],
)
def test_picture_that_is_no_slice(tmp_path, hu, picture, kind):
    file = write_pngs(tmp_path / "ct", hu) / "001.png"
    cv2.imwrite(str(file), picture)
    says = f"{file}: picture of mode {kind} where a 16-bit grey slice (I;16) belongs"
    assert fault(tmp_path / "ct", spacing=SPACING) == says
    with pytest.raises(DataError, match=f"mode {kind} "):
        read_header(tmp_path / "ct", spacing=SPACING)


def test_slices_of_different_sizes(tmp_path, hu):
    folder = write_pngs(tmp_path / "ct", hu)
    write_pngs(folder, hu[:1, :5], first=4)
    assert fault(folder, spacing=SPACING).endswith("004.png: 11 x 5 pixels, but 001.png has 11 x 9")


def test_pngs_beside_a_report_are_slices(tmp_path, hu):
    folder = write_pngs(tmp_path / "png", hu)
    data = make_slice(hu[0], "1.2.9", "1.2", uid.ComprehensiveSRStorage)
    del data.PixelData
    data.save_as(folder / "detections.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(folder, spacing=[1, 1, 5]).array, hu)
    shutil.copy(folder / "001.png", folder / "1.png")
    assert "has the number of" in fault(folder, spacing=[1, 1, 5])
