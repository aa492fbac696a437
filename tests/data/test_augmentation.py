"""Augmentation by names in the config: what it draws, and that boxes follow."""

import numpy as np
import pytest
import torch.nn.functional as F
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import from_numpy

from lens_d2.config import load_config
from lens_d2.data.augmentation import (
    CropAroundBox,
    SampleInput,
    Scale,
    Shift,
    ShiftTransform,
    build_augmentations,
    fit_scale,
)
from lens_d2.io.errors import DataError

PAPERS = (Scale(max_size=512, scale_range=(0.8, 1.2)), Shift(shift_range=8))


def augmented(image, boxes, seed, augmentations):
    """(S, H, W) image and its boxes after augmentations; corners of boxes, as points, stay their corners."""
    boxes = np.array(boxes, dtype=float)
    sample = SampleInput(image.transpose(1, 2, 0), boxes, slice(None), seed, boxes.reshape(-1, 2))
    sample.augment(augmentations)
    corners = sample.points.reshape(-1, 2, 2)
    np.testing.assert_allclose(np.hstack([corners.min(axis=1), corners.max(axis=1)]), sample.boxes)
    return sample.image.transpose(2, 0, 1), sample.boxes


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    further=st.sampled_from(
        [(), (CropAroundBox((64, 48)),), (CropAroundBox((400, 30)),), (T.RandomFlip(prob=0.5),)]
    ),
)
def test_boxes_follow_the_augmentation(seed, further):
    image = np.zeros((9, 100, 140), np.float32)
    image[:, 30:50, 60:100] = 100
    moved, (box,) = augmented(image, [[60, 30, 100, 50]], seed, [*PAPERS, *further])
    height, width = moved.shape[-2:]
    assert 0.79 * 40 < box[2] - box[0] < 1.21 * 40
    rows, columns = np.nonzero(moved[0] > 50)
    expected = box.clip(0, [width, height, width, height])
    np.testing.assert_allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], expected, atol=1.01)
    if further and isinstance(further[0], CropAroundBox):
        assert height <= further[0].crop_size[0] and width <= further[0].crop_size[1]
        assert 0 <= (box[0] + box[2]) / 2 <= width and 0 <= (box[1] + box[3]) / 2 <= height


@pytest.mark.parametrize("max_size", [512, 50])
def test_the_papers_augmentation_draws_what_it_always_has(max_size):
    """Bit by bit: a ratio, with which no side becomes too long, two shifts, one interpolation."""
    image = np.random.default_rng(0).random((9, 40, 60), dtype=np.float32)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scale = min(rng.uniform(0.8, 1.2), max_size / 60)
        dx, dy = rng.integers(-8, 9, size=2).tolist()
        size = [round(side * scale) for side in image.shape[1:]]
        resized = F.interpolate(from_numpy(image)[None], size=size, mode="bilinear", align_corners=False)[0]
        expected = F.pad(resized, (dx, -dx, dy, -dy)).numpy()
        got, _ = augmented(image, [], seed, [Scale(max_size=max_size, scale_range=(0.8, 1.2)), PAPERS[1]])
        assert np.array_equal(got, expected)


def test_shifted_contents_leave_air_behind():
    image = np.arange(12.0).reshape(3, 4)
    assert ShiftTransform(1, -1).apply_image(image).tolist() == [[0, 4, 5, 6], [0, 8, 9, 10], [0, 0, 0, 0]]
    for dx, dy in ((0, 7), (-9, 0), (4, -3)):
        assert not ShiftTransform(dx, dy).apply_image(image).any()  # out of sight


def test_large_images_shrink_to_the_longest_side_allowed():
    assert fit_scale((9, 100, 400), 512) == 1.0 and fit_scale((9, 100, 1024), 512) == 0.5


def test_a_crop_without_lesions_lies_anywhere_in_the_slice():
    rng, crop = np.random.default_rng(0), CropAroundBox((16, 16))
    drawn = [crop.get_transform(np.empty((20, 12, 9)), np.empty((0, 4)), slice(None), rng) for _ in range(50)]
    assert {(t.h, t.w) for t in drawn} == {(16, 12)}
    assert {t.x0 for t in drawn} == {0} and {t.y0 for t in drawn} == {0, 1, 2, 3, 4}


def test_a_config_adds_a_flip_and_leaves_the_rest_as_it_is():
    plain = build_augmentations(load_config(), is_train=True)
    assert [type(augmentation) for augmentation in plain] == [Scale, Shift]
    names = "('Scale', 'Shift', ('RandomFlip', {'prob': 0.5}))"
    flipping = build_augmentations(load_config("", ["INPUT.AUGMENTATIONS", names]), is_train=True)
    image = np.random.default_rng(0).random((9, 40, 60), dtype=np.float32)
    state = np.random.get_state()[1].tolist()
    flips = []
    for seed in range(20):
        before, (box,) = augmented(image, [[10, 5, 20, 30]], seed, plain)
        after, (moved,) = augmented(image, [[10, 5, 20, 30]], seed, flipping)
        assert np.array_equal(after, augmented(image, [], seed, flipping)[0])
        flips.append(not np.array_equal(after, before))
        if flips[-1]:
            width = before.shape[2]
            assert np.array_equal(after, before[:, :, ::-1])
            np.testing.assert_allclose(moved, [width - box[2], box[1], width - box[0], box[3]])
    assert 3 < sum(flips) < 17
    assert np.random.get_state()[1].tolist() == state  # whoever else draws from it is not disturbed


def test_evaluation_only_shrinks_what_is_too_large():
    (fit,) = build_augmentations(load_config("", ["INPUT.CROP.ENABLED", True]), is_train=False)
    assert (fit.max_size, fit.scale_range) == (512, (1.0, 1.0))
    opts = ["INPUT.AUGMENTATIONS", "('Shift',)", "INPUT.MAX_SIZE", 100]
    first, _ = build_augmentations(load_config("", opts), is_train=True)
    assert (first.max_size, first.scale_range) == (100, (1.0, 1.0))


@pytest.mark.parametrize(
    ("opts", "fault"),
    [
        (["INPUT.AUGMENTATIONS", "('Shfit',)"], "INPUT.AUGMENTATIONS: no 'Shfit'; did you mean Shift"),
        (["INPUT.AUGMENTATIONS", "(('RandomFlip', {'probability': 1}),)"], "cannot be used .*probability"),
        (["INPUT.AUGMENTATIONS", "(('RandomFlip',),)"], "a pair of a name and"),
        (["INPUT.CROP.ENABLED", True], 'INPUT.CROP.TYPE: .* only "absolute"'),
    ],
)
def test_augmentations_that_do_not_exist_are_a_line(opts, fault):
    with pytest.raises(DataError, match=fault):
        build_augmentations(load_config("", opts), is_train=True)
