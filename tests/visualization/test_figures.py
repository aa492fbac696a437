"""The papers' figures of examples: which slices, which colours."""

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lens_d2.structures.detections import VolumeDetections
from lens_d2.structures.records import make_lesion
from lens_d2.visualization.figures import (
    CROSS,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    MARKED,
    MINED,
    TRUE_POSITIVE,
    ExpertCase,
    draw_experts,
    draw_harvested,
    key_slice_of,
    marked_slices,
    typical_slices,
)

HERE, THERE = (4.0, 4, 12, 12), (20.0, 20, 30, 30)


def found(*boxes):
    """Detections of (x1, y1, x2, y2), first and last slice, score."""
    rows = [[z, *box, score] for box, first, last, score in boxes for z in range(first, last + 1)]
    owner = np.repeat(np.arange(len(boxes)), [last - first + 1 for _, first, last, _ in boxes])
    boxes3d = [[*box[:2], first, *box[2:], last] for box, first, last, _ in boxes]
    scores = [score for *_, score in boxes]
    return VolumeDetections(
        np.array(boxes3d, dtype=float).reshape(-1, 6), np.array(scores, dtype=float),
        np.array(rows, dtype=float).reshape(-1, 6), owner,
    )  # fmt: skip


def lesion(name, box, first, last, **keys):
    return make_lesion(name, [[z, *box] for z in range(first, last + 1)], **keys)


def pixels_of(path, color, part=slice(None)):
    """Pixels that have nearly a colour, in a part of the columns of a picture without its legend."""
    image = cv2.imread(str(path))[..., ::-1]
    body = image[: -image.shape[0] // 8].astype(int)
    body = body[:, slice(*(round(body.shape[1] * share) for share in part))] if isinstance(part, tuple) else body
    return int((np.abs(body - 255 * np.array(to_rgb(color))).max(axis=2) < 24).sum())


@pytest.fixture
def record(scan):
    lesions = [lesion("a", HERE, 2, 6), lesion("b", THERE, 5, 9)]
    return {
        **scan.record, "volume": "v", "lesions": lesions, "num_slices": 24, "first_slice": 1,
        "spacing": [1.5, 2.0, 3.0],
    }  # fmt: skip


def test_the_telling_slice_is_where_experts_differ(record):
    """Lesion "a" is found by one expert, on the slices 5 and 6; "b" by both; low scores do not count."""
    both = (THERE, 5, 9, 0.9)
    case = ExpertCase(record, {"x": found(both, (HERE, 5, 6, 0.5)), "y": found(both, (HERE, 2, 6, 0.05))})
    assert case.telling_slice() == (6, 1)
    agreed = ExpertCase(record, {"x": found(both), "y": found(both)})
    assert agreed.telling_slice() == (6, 0)  # with two lesions, next to the middle
    assert ExpertCase(record, {"x": found(), "y": found()}).telling_slice() == (6, 0)


def test_experts_have_their_panels_and_colours(record, scan, tmp_path):
    """The first finds one lesion and misses the other, the second has a false positive, the fused one all."""
    false = ((30.0, 4, 36, 10), 4, 8, 0.7)
    right = (HERE, 2, 6, 0.8)
    detections = {"fused": found(right, false), "x": found(right), "y": found(false)}
    path = tmp_path / "experts.png"
    draw_experts(path, [(ExpertCase(record, detections), scan.cache.open(scan.record))] * 2)
    thirds = {"x": (0, 0.33), "y": (0.34, 0.66), "fused": (0.67, 1)}
    styles = (TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE)
    colors = {
        name: {style.label for style in styles if pixels_of(path, style.color, part) > 20}
        for name, part in thirds.items()
    }
    assert colors == {
        "x": {"true positive", "false negative"},
        "y": {"false positive", "false negative"},
        "fused": {"true positive", "false positive", "false negative"},
    }


@pytest.mark.parametrize(
    ("slices", "key", "chosen"),
    [
        (range(10, 21), 15, [10, 12, 15, 18, 20]),
        (range(10, 21), 11, [10, 11, 15, 18, 20]),
        (range(10, 21), 10, [10, 12, 15, 18, 20]),
        (range(3), 1, [0, 1, 2]),
        ([7], 7, [7]),
    ],
)
def test_five_slices_with_the_first_the_key_and_the_last(slices, key, chosen):
    assert typical_slices(list(slices), key) == chosen


def test_the_key_slice_is_that_of_a_mark_nearby_or_of_the_largest_box():
    marked = lesion("a", HERE, 4, 4, key_slice=4, recist=[5.0, 5, 11, 11, 5, 11, 11, 5])
    mined = make_lesion("b", [[3, 0, 0, 9, 9], [4, 0, 0, 5, 5], [5, 0, 0, 6, 6]], status="mined")
    assert key_slice_of(marked) == 4 and key_slice_of(mined) == 3
    for spacing, slices in ((1.0, {4}), (20.0, set())):  # 3.5 pixels apart
        assert marked_slices({"lesions": [marked, mined], "spacing": [spacing] * 3}, mined) == slices
    assert key_slice_of(mined, {4}) == 4


def test_harvested_lesions_stand_beside_marks(record, scan, tmp_path):
    mark = lesion("a", HERE, 6, 6, key_slice=6, recist=[5.0, 8, 11, 8, 8, 5, 8, 11])
    mined = lesion("b", (20.0, 5, 28, 12), 4, 9, status="mined")
    both = {**record, "lesions": [mark, mined]}
    path = tmp_path / "harvested.png"
    draw_harvested(path, [(both, mined, scan.cache.open(scan.record))])
    assert pixels_of(path, MINED.color) > 5 * pixels_of(path, MARKED.color) / 2 > 50
    assert pixels_of(path, CROSS[0]) > 5
