"""Volumes in memory are read as the same volumes in files are."""

import numpy as np
import pytest
import SimpleITK as sitk

from lens_d2.data.sources.array import ArraySource
from lens_d2.data.volume import read_header, read_volume
from lens_d2.io.errors import DataError

SPACING, ORIGIN = (0.7, 0.8, 2.5), (-100.0, -90.0, 40.0)


@pytest.fixture
def image() -> sitk.Image:
    voxels = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    return image


def test_an_image_is_read_as_its_file(image, tmp_path):
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    from_file, from_image = read_volume(tmp_path / "ct.nrrd"), read_volume(ArraySource.from_image(image))
    np.testing.assert_array_equal(from_file.array, from_image.array)
    np.testing.assert_allclose(from_file.geometry.affine, from_image.geometry.affine)
    assert read_header(ArraySource.from_image(image)).size == from_file.geometry.size


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint16, np.float32, np.float64, bool])
def test_values_are_rounded_and_saturated(dtype):
    values = np.array([[[0, 1, 70_000]]], dtype=np.float64)
    voxels = values.astype(dtype) if dtype is not np.int16 else values.clip(0, 32767).astype(dtype)
    source = ArraySource(voxels, SPACING)
    expected = np.clip(np.rint(voxels.astype(np.float64)), -32768, 32767).astype(np.int16)
    read = source.array()
    np.testing.assert_array_equal(read, expected)
    read[:] = 0  # a copy: whoever has given the array keeps it
    np.testing.assert_array_equal(source.array(), expected)


def test_halves():
    voxels = np.array([[[0.4, -0.6, 1e9, -1e9]]])
    assert ArraySource(voxels, SPACING).array().tolist() == [[[0, -1, 32767, -32768]]]


@pytest.mark.parametrize(
    ("voxels", "place", "message"),
    [
        (np.zeros((2, 2)), {}, "a volume has three axes"),
        (np.zeros((2, 2, 2), dtype="U1"), {}, "HU are real numbers"),
        (np.zeros((2, 2, 2)), {"spacing": (-1, 1, 2)}, "a spacing of -1 x 1 x 2 mm, which is negative"),
        (np.zeros((2, 2, 2)), {"origin": (0, 0)}, "spacing and origin have three finite numbers each"),
        (np.zeros((2, 2, 2)), {"origin": (0, 0, np.nan)}, "spacing and origin have three finite numbers each"),
        (np.zeros((2, 2, 2)), {"spacing": ("a", 1, 1)}, "spacing and origin have three finite numbers each"),
        (
            np.zeros((2, 2, 2)),
            {"direction": 2 * np.eye(3)},
            "axes of the lengths 2, 2, 2 in direction, where unit",
        ),
        (np.ma.masked_less(np.zeros((2, 2, 2)), 1), {}, "a masked array: fill what is masked"),
        (
            np.zeros((2, 2, 2)),
            {"direction": np.eye(2)},
            "spacing and origin have three finite numbers each, direction nine",
        ),
    ],
)
def test_what_is_no_volume(voxels, place, message):
    with pytest.raises(DataError, match=message):
        ArraySource(voxels, **{"spacing": SPACING, **place})


def test_colour_images_are_refused():
    with pytest.raises(DataError, match="a scalar image of three dimensions"):
        ArraySource.from_image(sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3))
