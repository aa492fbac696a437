"""Patches around boxes: where they lie, what they hold, where the boxes are in them."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.data.cache import PreprocessParams, VolumeCache
from lens_d2.data.patches import AIR, PatchGrid, voxel_mm

SPACING = (1.5, 1.5, 4.0)  # of the file, x, y, z
SIZE = (60, 48, 10)


def ramp(x, y, z):
    """HU that grow by different steps along the axes of the file."""
    return 3.0 * x + 2.0 * y + 10.0 * z


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Writes an array (z, y, x) as a file with x, y or z reversed."""

    def make(array, flips=(1, 1, 1)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING)
        image.SetDirection(np.diag(flips).astype(float).ravel())
        path = tmp_path_factory.mktemp("patches") / "volume.nii.gz"
        sitk.WriteImage(image, str(path))
        return str(path)

    return make


@pytest.fixture(scope="module", params=[(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def volume(request, write, tmp_path_factory):
    z, y, x = np.indices(SIZE[::-1])
    path = write(np.rint(ramp(x, y, z)).astype(np.int16), request.param)
    params = PreprocessParams(pixel_spacing=None, border_hu=None)
    return VolumeCache(tmp_path_factory.mktemp("cache"), params).open(path)


def test_voxel_sizes(volume):
    np.testing.assert_allclose(voxel_mm(volume), SPACING)


def test_the_centre_of_a_patch_is_the_centre_of_the_box(volume):
    # Edges 20..30 and 10..20, slices 3..5: the centre is edge 25 and 15, slice 4.
    patch, box = PatchGrid((3, 7, 7), (4.0, 1.5, 1.5)).crop(volume, [[20, 10, 3, 30, 20, 5]])
    assert patch[0, 1, 3, 3] == pytest.approx(ramp(24.5, 14.5, 4), abs=0.51)
    # The box is ten pixels wide and larger than the patch; it covers its three slices.
    np.testing.assert_allclose(box, [[0, 0, 0, 7, 7, 3]])


def test_steps_between_voxels_are_the_grids(volume):
    patch, _ = PatchGrid((4, 6, 8), (2.0, 3.0, 0.75)).crop(volume, [[28, 22, 4, 32, 26, 5]])
    sign = np.where(volume.geometry.flips, -1, 1)
    along = [np.diff(patch[0], axis=axis).mean() for axis in (2, 1, 0)]
    expected = np.array([3.0 * 0.5, 2.0 * 2.0, 10.0 * 0.5]) * sign
    np.testing.assert_allclose(along, expected, rtol=0.02)


def test_the_box_in_the_patch_covers_the_same_voxels(write, tmp_path):
    """What is bright in the file is bright inside the box of the patch, and nothing else."""
    array = np.full(SIZE[::-1], 0, np.int16)
    array[4:6, 20:28, 30:40] = 1000
    cache = VolumeCache(tmp_path, PreprocessParams(pixel_spacing=0.75, border_hu=None))
    for flips in ((1, 1, 1), (-1, 1, -1)):
        volume = cache.open(write(array, flips))
        grid = PatchGrid((12, 40, 40), (2.0, 0.75, 0.75))
        (patch,), (box,) = grid.crop(volume, [[30, 20, 4, 40, 28, 5]], np.array([[1.5, -3.0, 2.0]]))
        inside = np.argwhere(patch > 500)
        np.testing.assert_allclose(inside.min(axis=0), np.round(box[[2, 1, 0]]))
        np.testing.assert_allclose(inside.max(axis=0) + 1, np.round(box[[5, 4, 3]]))
        np.testing.assert_allclose(box[3:] - box[:3], [20, 16, 4], atol=1e-4)


def test_beyond_the_image_lies_air_and_beyond_the_ends_the_last_slice(volume):
    patch, box = PatchGrid((5, 9, 9), (4.0, 1.5, 1.5)).crop(volume, [[0, 0, 0, 2, 2, 0]])
    far_x, far_y = volume.geometry.flips[:2]
    assert patch[0, 2, -1 if far_y else 0, -1 if far_x else 0] == AIR and patch[0, 2, 4, 4] > AIR
    ends = patch[0, :3] if not volume.geometry.flips[2] else patch[0, 2:]
    assert (ends == ends[:1]).all()
    np.testing.assert_allclose(box[0, 3:] - box[0, :3], [2, 2, 1], atol=1e-5)


def test_a_coarse_patch_averages_what_it_covers(write, tmp_path):
    """Single bright pixels at every fourth place are not missed, nor taken for all."""
    array = np.zeros(SIZE[::-1], np.int16)
    array[:, ::4, ::4] = 1600
    volume = VolumeCache(tmp_path, PreprocessParams(pixel_spacing=None, border_hu=None)).open(write(array))
    patch, _ = PatchGrid((1, 6, 6), (4.0, 6.0, 6.0)).crop(volume, [[28, 22, 4, 32, 26, 4]])
    np.testing.assert_allclose(patch, 100.0, atol=1e-3)


def test_no_box_no_patch(volume):
    patch, box = PatchGrid((2, 3, 4), (1.0, 1.0, 1.0)).crop(volume, [])
    assert patch.shape == (0, 2, 3, 4) and box.shape == (0, 6)


@settings(max_examples=25, deadline=None)
@given(
    x=st.floats(0, 55),
    y=st.floats(0, 44),
    z=st.integers(0, 9),
    width=st.floats(0.5, 30),
    height=st.floats(0.5, 30),
)
def test_many_boxes_at_once_give_what_each_gives_alone(volume, x, y, z, width, height):
    box = [x, y, z, min(x + width, 60), min(y + height, 48), min(z + 2, 9)]
    grid = PatchGrid((4, 8, 8), (2.0, 2.0, 2.0))
    other = [10, 10, 0, 20, 20, 9]
    together, alone = grid.crop(volume, [other, box]), grid.crop(volume, [box])
    np.testing.assert_array_equal(together.hu[1], alone.hu[0])
    np.testing.assert_array_equal(together.boxes[1], alone.boxes[0])
    assert np.isfinite(alone.hu).all() and (alone.boxes[0, 3:] > alone.boxes[0, :3]).all()
