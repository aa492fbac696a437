"""From the file's voxels to the cache frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.data.preprocess import PreprocessParams, cache_geometry, cache_slices
from lens_d2.data.volume import CTVolume, read_volume
from lens_d2.structures.geometry import VolumeGeometry

PARAMS = PreprocessParams()
WHOLE = PreprocessParams(border_hu=None)


def ct(array, spacing=(0.8, 0.8, 2.0)) -> CTVolume:
    """A volume whose file counts backwards where the spacing is negative."""
    array = np.asarray(array, dtype=np.int16)
    return CTVolume(array, VolumeGeometry(array.shape[::-1], np.diag([*spacing, 1.0])))


def preprocess(volume, params):
    geometry = cache_geometry(volume, params)
    return geometry, np.stack(list(cache_slices(volume, geometry, params.hu_range)))


def air_with_body(rows, columns, shape=(3, 120, 160)) -> np.ndarray:
    array = np.full(shape, -1000)
    array[1, rows, columns] = 40
    return array


steps = st.floats(0.45, 1.2).flatmap(lambda step: st.sampled_from([step, -step]))


@settings(max_examples=30, deadline=None)
@given(steps, steps, st.sampled_from([-2.0, 2.0]), st.sampled_from([None, (5, 3, 30, 38)]))
def test_pixels_lie_where_the_geometry_says(x_step, y_step, z_step, crop):
    """Of a picture that grows linearly along every axis, each pixel has the value that belongs to its place."""
    z, y, x = np.meshgrid(np.arange(4), np.arange(70), np.arange(60), indexing="ij")
    volume = ct(20 * x + 10 * y + 100 * z - 1000, (x_step, y_step, z_step))
    geometry = VolumeGeometry(volume.geometry.size, volume.geometry.affine, 0.8, crop)
    slices = np.stack(list(cache_slices(volume, geometry, WHOLE.hu_range)))
    assert slices.shape == geometry.cache_shape and slices.dtype == np.int16
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(slices.shape[2]), np.arange(slices.shape[1])))
    places = geometry.points_to_volume(np.column_stack([x, y]) + 0.5) - 0.5
    inner = ((places >= 1) & (places <= [58, 68])).all(axis=1)  # next to the edge, linear growth ends
    # Averaging over an area takes the parts of pixels that it covers as wholes: up to 1/8 pixel off, 0 on average.
    tolerance = 30 / 8 + 1 if np.less_equal(geometry.resized, (60, 70)).all() else 1.01
    for cache_z, picture in enumerate(slices):
        expected = places @ [20, 10] + 100 * geometry.slices_to_volume(cache_z) - 1000
        error = picture[y[inner], x[inner]] - expected[inner]
        assert np.abs(error).max(initial=0) < tolerance
        assert not inner.any() or abs(error.mean()) < 0.6


def test_values_outside_of_the_12_bit_range_are_clipped():
    _, slices = preprocess(
        ct(np.tile(np.array([-32768, -3024, -2000, -1024, 0, 3071, 4000, 32767]), (1, 8, 1))), WHOLE
    )
    assert slices[0, 0].tolist() == [-1024, -1024, -1024, -1024, 0, 3071, 3071, 3071]


def test_same_spacing_keeps_the_pixels():
    array = np.random.default_rng(0).integers(-1024, 3071, (3, 20, 30))
    np.testing.assert_array_equal(preprocess(ct(array), WHOLE)[1], array)
    unscaled = PreprocessParams(pixel_spacing=None, border_hu=None)
    np.testing.assert_array_equal(preprocess(ct(array, (0.6, 0.7, 2)), unscaled)[1], array)


@pytest.mark.parametrize("x_sign", [1, -1])
def test_borders_are_clipped_to_the_body_and_a_margin(x_sign):
    geometry, slices = preprocess(ct(air_with_body(slice(30, 80), slice(40, 90)), (0.8 * x_sign, 0.8, 2)), PARAMS)
    assert slices.shape == (3, 70, 70)  # 8 mm are 10 pixels
    np.testing.assert_allclose(geometry.boxes_to_volume([[0, 0, 70, 70]]), [[30, 20, 100, 90]])
    body = geometry.boxes_to_cache([[40, 30, 90, 80]])[0].astype(int)
    assert (slices[1, body[1] : body[3], body[0] : body[2]] == 40).all()
    assert (slices == 40).sum() == 50 * 50


def test_body_of_any_slice_counts():
    array = air_with_body(slice(30, 80), slice(40, 90))
    array[2, 50:60, 100:140] = 40
    assert cache_geometry(ct(array), PARAMS).crop == (30, 20, 150, 90)


def test_margin_ends_at_the_picture():
    assert cache_geometry(ct(air_with_body(slice(3, 118), slice(0, 160))), PARAMS).crop == (0, 0, 160, 120)


def test_table_top_and_noise_are_no_body():
    array = air_with_body(slice(30, 80), slice(40, 90))
    array[:, 100:103, :] = 100  # 2.4 mm
    array[0, 5::9, 5::9] = 3000
    assert cache_geometry(ct(array), PARAMS).crop == (30, 20, 100, 90)


def test_air_alone_is_kept_whole():
    geometry, slices = preprocess(ct(np.full((2, 30, 40), -1000)), PARAMS)
    assert geometry.crop is None and slices.shape == (2, 30, 40)


def test_real_ct_lies_as_expected(shared_dir):
    """The patient's back, with the spine, is below, although the file counts from back to front."""
    volume = read_volume(shared_dir / "ct" / "torso_3mm.nii.gz")
    geometry, slices = preprocess(volume, PARAMS)
    assert geometry.pixel_spacing == 0.8 and slices.min() >= -1024 and slices.max() <= 3071
    rows = np.argwhere(slices[20:] > 300)[:, 1]
    assert rows.mean() > 0.6 * slices.shape[1]
    z, y, x = np.unravel_index(volume.array.argmax(), volume.array.shape)
    column, row = geometry.points_to_cache([[x + 0.5, y + 0.5]])[0].astype(int)
    assert slices[int(geometry.slices_to_cache(z)), row, column] > 1000
