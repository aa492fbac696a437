"""Maps among volume frame, cache frame and world."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_d2.structures.geometry import VolumeGeometry, body_axes

TOLERANCE = 1e-6


@st.composite
def geometries(draw) -> VolumeGeometry:
    """Any geometry in x, y, z order: flipped, tilted up to 40 degrees, sheared as by a gantry, clipped."""
    number = lambda low, high: draw(st.floats(low, high, allow_nan=False))  # noqa: E731
    size = [draw(st.integers(1, 600)) for _ in range(3)]
    spacing = [number(0.3, 3), number(0.3, 3), number(0.5, 10)]
    angle, shear = np.deg2rad(number(-40, 40)), number(-0.5, 0.5)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    flips = np.diag([draw(st.sampled_from([-1, 1])) for _ in range(3)])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ flips @ np.diag(spacing)
    affine[1, 2] += shear * spacing[2]
    affine[:3, 3] = [number(-500, 500) for _ in range(3)]
    pixel_spacing = draw(st.none() | st.floats(0.4, 2))
    whole = VolumeGeometry(size, affine, pixel_spacing)
    width, height = whole.resized
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    crop = (x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height)))
    return VolumeGeometry(size, affine, pixel_spacing, draw(st.sampled_from([None, crop])))


def boxes3d(geometry: VolumeGeometry, n: int = 20) -> np.ndarray:
    corners = np.random.default_rng(0).uniform(-5, 600, (n, 2, 3))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


@given(geometries())
def test_round_trips(geometry):
    boxes = boxes3d(geometry)
    flat = boxes[:, [0, 1, 3, 4]]
    points, slices = boxes[:, :2], boxes[:, 2]
    g = geometry
    for there, back, values in [
        (g.boxes_to_cache, g.boxes_to_volume, flat),
        (g.boxes3d_to_cache, g.boxes3d_to_volume, boxes),
        (g.points_to_cache, g.points_to_volume, points),
        (g.slices_to_cache, g.slices_to_volume, slices),
        (g.index_to_world, g.world_to_index, boxes[:, :3]),
    ]:
        for first, second in [(there, back), (back, there)]:
            np.testing.assert_allclose(second(first(values)), values, rtol=0, atol=TOLERANCE)


@given(geometries(), st.permutations([0, 1, 2]))
def test_boxes_come_back_from_the_world(geometry, axes):
    """Exactly if the axes are those of the world, in any direction; else the box back is around the box there."""
    boxes = boxes3d(geometry)
    boxes[:, [2, 5]] = np.round(boxes[:, [2, 5]])
    back = geometry.boxes3d_from_world(geometry.boxes3d_to_world(boxes))
    assert (back[:, :3] <= boxes[:, :3] + TOLERANCE).all() and (back[:, 3:] >= boxes[:, 3:] - TOLERANCE).all()
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(axes)] * geometry.spacing * np.where(geometry.flips, -1, 1)
    straight = VolumeGeometry(geometry.size, affine)
    there = straight.boxes3d_to_world(boxes)
    np.testing.assert_allclose(straight.boxes3d_from_world(there), boxes, atol=TOLERANCE)


def test_a_box_thinner_than_a_slice_has_its_middle_as_both():
    straight = VolumeGeometry((9, 9, 9), np.eye(4))
    (box,) = straight.boxes3d_from_world(np.array([[1, 1, 4.1, 2, 2, 4.5]]))
    np.testing.assert_allclose(box, [1.5, 1.5, 4.3, 2.5, 2.5, 4.3])


@given(geometries())
def test_cache_and_volume_frame_meet_in_the_world(geometry):
    """A cache voxel has the same place in the world through the volume frame as through the cache's affine."""
    index = boxes3d(geometry)[:, :3]
    direct = index @ geometry.cache_affine[:3, :3].T + geometry.cache_affine[:3, 3]
    in_slice = geometry.points_to_volume(index[:, :2] + 0.5) - 0.5
    volume_index = np.column_stack([in_slice, geometry.slices_to_volume(index[:, 2])])
    np.testing.assert_allclose(geometry.index_to_world(volume_index), direct, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("degrees", [0, 9, 44])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_obliquity_is_the_angle_to_the_patients_axes(degrees, signs):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = np.array([[cosine, -sine, 0, 7], [sine, cosine, 0, 8], [0, 0, 1, 9], [0, 0, 0, 1.0]])
    affine = turned @ np.diag([0.7 * signs[0], 0.7 * signs[1], 2.5 * signs[2], 1])
    assert VolumeGeometry((4, 5, 6), affine).obliquity == pytest.approx(degrees, abs=1e-5)


@given(geometries())
def test_cache_frame_points_to_left_back_and_head(geometry):
    assert (np.diag(geometry.cache_affine)[:3] > 0).all()


@given(geometries())
def test_boxes_agree_with_points_and_slices(geometry):
    boxes = boxes3d(geometry)
    cached = geometry.boxes3d_to_cache(boxes)
    assert (cached[:, :3] <= cached[:, 3:]).all()
    np.testing.assert_array_equal(cached[:, [0, 1, 3, 4]], geometry.boxes_to_cache(boxes[:, [0, 1, 3, 4]]))
    ends = geometry.slices_to_cache(boxes[:, [2, 5]])
    np.testing.assert_array_equal(cached[:, [2, 5]], np.sort(ends, axis=1))


@given(geometries())
def test_plain_data(geometry):
    """Through JSON and pickle unchanged; no NumPy numbers inside, whatever it was made of."""
    assert VolumeGeometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry
    assert pickle.loads(pickle.dumps(geometry)) == geometry
    assert isinstance(hash(geometry), int)


def test_resampling_and_clipping_by_numbers():
    geometry = VolumeGeometry((512, 512, 60), np.diag([0.6, 0.6, 5.0, 1.0]), 0.8, (10, 20, 300, 320))
    assert geometry.resized == (384, 384)
    assert geometry.cache_shape == (60, 300, 290)
    assert geometry.slice_interval == 5.0
    np.testing.assert_allclose(geometry.boxes_to_cache([[100, 200, 120, 240]]), [[65, 130, 80, 160]])


def test_reversed_axes_by_numbers():
    """The last pixel of a reversed axis is the first of the cache frame; boxes keep x1 < x2."""
    geometry = VolumeGeometry((100, 80, 30), np.diag([-0.8, -0.8, -2.0, 1.0]))
    assert geometry.flips == (True, True, True)
    np.testing.assert_allclose(geometry.boxes_to_cache([[99, 79, 100, 80]]), [[0, 0, 1, 1]])
    np.testing.assert_allclose(geometry.slices_to_cache([0, 29]), [29, 0])
    np.testing.assert_allclose(geometry.boxes3d_to_cache([[0, 0, 3, 10, 5, 4]]), [[90, 75, 25, 100, 80, 26]])


def test_world_box_reaches_to_the_outer_faces():
    geometry = VolumeGeometry((10, 10, 10), [[-2, 0, 0, 7], [0, 1, 0, 0], [0, 0, 5, -3], [0, 0, 0, 1]])
    # One voxel, index (1, 2, 3): its centre is (5, 2, 12), its edges 1, 0.5 and 2.5 mm away.
    np.testing.assert_allclose(geometry.boxes3d_to_world([[1, 2, 3, 2, 3, 3]]), [[4, 1.5, 9.5, 6, 2.5, 14.5]])


def test_world_box_holds_a_tilted_box():
    turn = np.deg2rad(30)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    low_x, low_y, _, high_x, high_y, _ = VolumeGeometry((9, 9, 9), affine).boxes3d_to_world([[0, 0, 0, 2, 2, 2]])[
        0
    ]
    extent = 2 * (np.cos(turn) + np.sin(turn))
    np.testing.assert_allclose([high_x - low_x, high_y - low_y], [extent, extent])


def test_no_boxes_stay_no_boxes():
    geometry = VolumeGeometry((4, 4, 4), np.eye(4), 0.8)
    assert geometry.boxes_to_cache([]).shape == (0, 4)
    assert geometry.boxes3d_to_volume(np.zeros((0, 6))).shape == (0, 6)
    assert geometry.boxes3d_to_world([]).shape == (0, 6)


@given(st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1, 1])] * 3), st.floats(-30, 30))
def test_body_axes_are_the_nearest(order, signs, degrees):
    turn = np.deg2rad(degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine = np.eye(4)
    affine[:3, :3] = (tilt * signs * [0.7, 0.8, 5.0])[:, order]  # axis k of the file runs along body axis order[k]
    assert [order[axis] for axis in body_axes(affine)] == [0, 1, 2]


@pytest.mark.parametrize("affine", [np.diag([1.0, 1.0, 0.0, 1.0]), np.diag([1.0, np.nan, 1.0, 1.0])])
def test_a_place_without_extent_is_refused(affine):
    with pytest.raises(ValueError, match="no inverse"):
        VolumeGeometry((3, 3, 3), affine)
