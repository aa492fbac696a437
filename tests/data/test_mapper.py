"""From a record and a slice to a sample: intensities, neighbours, augmentation, boxes."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from detectron2.data.transforms import RandomFlip

from lens_d2.data.augmentation import CropAroundBox, Scale, Shift
from lens_d2.data.cache import PreprocessParams, VolumeCache
from lens_d2.data.lesion_labels import TagTargets
from lens_d2.data.mapper import SliceMapper, crop_around, resize, sample_positions, window
from lens_d2.modeling.afp import CenterRegionLabeler, pixel_centers
from lens_d2.structures.status import BoxStatus

BOX = [60.0, 40.0, 80.0, 64.0]  # of the bright block, in the file's pixel edges


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A block of soft tissue with a bright block in it, 1 mm pixels, 5 mm slices, x and y stored reversed."""
    array = np.full((12, 128, 160), -1000, np.int16)
    array[:, 16:112, 16:144] = 40
    array[4:8, 40:64, 60:80] = 1000
    array[:, 100:104, 100:104] += (np.arange(12) * 10).astype(np.int16)[:, None, None]
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 5.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    path = tmp_path_factory.mktemp("volume") / "block.nii.gz"
    sitk.WriteImage(image, str(path))
    boxes = [[z, *BOX] for z in range(4, 8)]
    lesions = [
        {"status": "annotation", "boxes": boxes},
        {"status": "uncertain", "boxes": [[5, 100, 20, 120, 30]]},
    ]
    return {
        "file_name": str(path), "volume": "block", "expert": "lits", "num_slices": 12, "lesions": lesions,
    }  # fmt: skip


@pytest.fixture
def mapper(record, tmp_path):
    def make(**kwargs):
        settings = {"num_slices": 9, "slice_interval": 2.0, "hu_window": (-1024, 3071)}
        cache = VolumeCache(tmp_path, PreprocessParams(pixel_spacing=1.0))
        return SliceMapper(cache=cache, **{**settings, **kwargs})

    return make


def brightest(image):
    """Box of what is brighter than soft tissue, in pixel edges."""
    rows, columns = np.nonzero(image.numpy() > 95)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_papers_window():
    np.testing.assert_allclose(
        window(np.array([-3000, -1024, 0, 3071, 9000]), (-1024, 3071)), [0, 0, 63.765, 255, 255], rtol=1e-4
    )


def test_slices_are_2_mm_apart_around_the_centre():
    np.testing.assert_allclose(sample_positions(10, 9, 2.0, 5.0), 10 + np.arange(-4, 5) * 0.4)


def test_boxes_lie_on_what_they_mark(mapper, record):
    sample = mapper()(record, 5)
    assert sample["image"].shape[0] == 9 and sample["image"].dtype == torch.float32
    lesion = sample["instances"][sample["instances"].gt_status == BoxStatus.LESION]
    np.testing.assert_allclose(lesion.gt_boxes.tensor[0].numpy(), brightest(sample["image"][4]), atol=1e-3)
    assert sample["instances"].gt_status.tolist() == [BoxStatus.LESION, BoxStatus.UNCERTAIN]
    assert (sample["expert"], sample["volume"], sample["slice"]) == ("lits", "block", 5)


def test_a_sample_knows_where_it_lies_in_the_volume(mapper, record):
    flip_and_more = [Scale(max_size=512, scale_range=(1.5, 1.5)), Shift(shift_range=7), RandomFlip(prob=1.0)]
    for augmentations in ((), (*flip_and_more, CropAroundBox((60, 60)))):
        sample = mapper(augmentations=augmentations)(record, 5, 11)
        corners = sample["instances"].gt_boxes.tensor[0].reshape(2, 2).numpy()
        corners = corners @ sample["to_volume"][:, :2].T + sample["to_volume"][:, 2]
        np.testing.assert_allclose([*corners.min(axis=0), *corners.max(axis=0)], BOX, atol=1e-3)


def test_only_boxes_of_the_slice(mapper, record):
    assert len(mapper()(record, 8)["instances"]) == 0


def test_neighbouring_slices_are_interpolated(mapper, record):
    """The corner mark grows by 10 HU a slice, so by 4 HU every 2 mm."""
    image = mapper()(record, 6)["image"] * (4095 / 255) - 1024
    levels = image[:, 17, 49]  # (102, 102) in the file, reversed and clipped to 8 mm around the body
    np.testing.assert_allclose(levels.diff().numpy(), 4, atol=0.2)


def test_beyond_the_ends_the_last_slice_repeats(mapper, record):
    image = mapper()(record, 0)["image"]
    assert torch.equal(image[0], image[4]) and torch.equal(image[3], image[4])


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (["uncertain", "mined", "hard_negative", "annotation"], [1, 3]),
        (["hard_negative", "unsure", "hard_negative"], [0, 2]),
        (["uncertain"], []),
        ([], []),
    ],
)
def test_a_crop_shows_a_lesion_or_else_a_hard_negative(status, shown):
    assert np.flatnonzero(crop_around(status)).tolist() == shown


def test_crops_of_a_slice_with_a_lesion_are_around_the_lesion(mapper, record):
    cropping = mapper(augmentations=[CropAroundBox((24, 24))])
    far_off = {"status": "hard_negative", "boxes": [[5, 20, 90, 30, 100]]}
    record = {**record, "lesions": [*record["lesions"], far_off]}
    for seed in range(20):
        instances = cropping(record, 5, seed)["instances"]
        lesions = instances.gt_boxes.tensor[instances.gt_status == BoxStatus.LESION]
        assert len(lesions) or (instances.gt_status == BoxStatus.UNCERTAIN).all()  # too little of it left
    statuses = [s for seed in range(20) for s in cropping(record, 5, seed)["instances"].gt_status.tolist()]
    assert BoxStatus.LESION in statuses and BoxStatus.HARD_NEGATIVE not in statuses


def test_augmentation_is_a_function_of_the_seed(mapper, record):
    augmenting = mapper(augmentations=[Scale(max_size=512, scale_range=(0.8, 1.2)), Shift(shift_range=8)])
    first, again, other = (augmenting(record, 5, seed)["image"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_large_slices_are_scaled_to_the_longest_side_allowed(mapper, record):
    sample = mapper(augmentations=[Scale(max_size=64)])(record, 5)
    assert max(sample["image"].shape[1:]) == 64
    lesion = sample["instances"].gt_boxes.tensor[0].numpy()
    np.testing.assert_allclose(lesion, brightest(sample["image"][4]), atol=1.0)


def test_a_lesion_has_the_weight_of_its_record(mapper, record):
    soft = {**record["lesions"][0], "weight": 0.75}
    instances = [
        mapper()({**record, "lesions": lesions}, 5)["instances"] for lesions in ([soft], record["lesions"][:1])
    ]
    assert instances[0].gt_weight.tolist() == [0.75] and not instances[1].has("gt_weight")


def test_a_lesion_pushed_out_of_the_picture_is_no_target(mapper, record):
    boxes = np.array([[-18.0, 10, 2, 30], [-10, 10, 10, 30], [-30, 10, -5, 30]])
    statuses = torch.zeros(3, dtype=torch.int64)
    targets = SliceMapper._targets(boxes, statuses, (100, 100), weight=np.arange(3.0))
    assert targets.gt_weight.tolist() == [0, 1]
    assert targets.gt_status.tolist() == [BoxStatus.UNCERTAIN, BoxStatus.LESION]
    assert targets.gt_boxes.tensor.tolist() == [[0, 10, 2, 30], [0, 10, 10, 30]]


def test_resizing_by_a_factor():
    image = torch.arange(12.0).view(1, 3, 4)
    assert resize(image, 2.0).shape == (1, 6, 8) and resize(image, 1.0) is image


def test_datasets_can_share_a_head(mapper, record):
    experts = ("deeplesion", "lits")
    assert mapper(experts=experts)(record, 5)["expert"] == "lits"
    pooled = mapper(experts=experts, combine="pooling")(record, 5)
    assert pooled["expert"] == "deeplesion" and len(pooled["instances"]) == 2
    with pytest.raises(ValueError, match="COMBINE"):
        mapper(combine="stacking")


def test_positive_pooling_makes_no_negatives_of_the_other_datasets(mapper, record):
    """Neither pixels for AFP nor proposals for the heads."""
    sample = mapper(experts=("deeplesion",), combine="positive_pooling")(record, 5)
    height, width = sample["image"].shape[-2:]
    points = pixel_centers(height // 4, width // 4, 4, "cpu")
    labels, *_ = CenterRegionLabeler()(points, 4, sample["instances"])
    assert set(labels.tolist()) == {-1, 1}
    own = mapper(experts=("lits",), combine="positive_pooling")(record, 5)
    assert own["instances"].gt_status.tolist() == [BoxStatus.LESION, BoxStatus.UNCERTAIN]


ENDS = np.array([[61.0, 41], [78, 62], [76, 44], [64, 58]])  # of a mark on the block


@pytest.fixture
def marked(record):
    own = {**record["lesions"][0], "id": "block/7", "recist": ENDS.ravel().tolist(), "key_slice": 5}
    return {**record, "lesions": [own, record["lesions"][1]]}


@pytest.mark.parametrize("seed", range(3))
def test_recist_marks_move_with_their_boxes(mapper, marked, seed):
    """By the augmentation's shift and scale, and with the axes that the file stores reversed."""
    augmenting = mapper(augmentations=[Scale(max_size=512, scale_range=(0.8, 1.2)), Shift(shift_range=8)])
    instances = augmenting(marked, 5, seed)["instances"]
    assert instances.gt_recist.shape == (2, 4, 2) and instances.gt_recist[1].isnan().all()
    (x1, y1, x2, y2), ends = instances.gt_boxes.tensor[0].tolist(), instances.gt_recist[0].numpy()
    inside = (ENDS - BOX[:2]) / [20, 24]
    np.testing.assert_allclose((ends - [x1, y1]) / [x2 - x1, y2 - y1], 1 - inside, atol=1e-3)


def test_a_mark_is_on_its_key_slice_alone(mapper, marked):
    assert mapper()(marked, 6)["instances"].gt_recist.isnan().all()


def test_labels_of_a_lesion_are_in_its_samples(mapper, marked):
    positive, weight = np.array([[True, False], [False, True]]), np.array([[3, 0.5], [1, 0]], np.float32)
    tags = TagTargets({9: 0, 7: 1}, positive, weight, frozenset({marked["expert"]}))
    marked["lesions"][1] = {**marked["lesions"][1], "id": "block/9", "recist": None}
    instances = mapper(tags=tags)(marked, 5)["instances"]
    assert instances.gt_tags.tolist() == [[False, True], [False, False]]
    assert instances.gt_tag_weights.tolist() == [[1, 0], [0, 0]]
    pooled = mapper(tags=tags, experts=("deeplesion",), combine="positive_pooling")(marked, 5)["instances"]
    assert pooled.gt_tags.shape == (3, 2) and pooled.gt_recist.shape == (3, 4, 2)
