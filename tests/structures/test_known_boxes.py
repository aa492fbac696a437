"""Overlaps with the boxes that are known are those on the same slice."""

import numpy as np
from helpers.mining_proposals import record, tracklets

from lens_d2.structures.boxes import pairwise_iou
from lens_d2.structures.known_boxes import KnownBoxes, best_overlap, tracklet_overlaps
from lens_d2.structures.status import STATUS_OF_RECORD, BoxStatus

BOX = np.array([10.0, 10, 30, 30])
FAR = np.array([60.0, 60, 80, 80])


def test_overlaps_are_those_of_the_same_slice():
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 40, (60, 2)), rng.uniform(1, 30, (60, 2))
    boxes = np.column_stack([rng.integers(0, 4, 60), corners, corners + sides])
    known = KnownBoxes()
    for i, box in enumerate(boxes[:20]):
        known.add(str(i), box[None], BoxStatus.LESION)
    expected = pairwise_iou(boxes[20:, 1:], boxes[:20, 1:]) * (boxes[20:, :1] == boxes[:20, 0])
    np.testing.assert_allclose(known.largest_overlap(boxes[20:]), expected.max(axis=1))
    rows, columns, iou = known.pairs(boxes[20:])
    np.testing.assert_allclose(expected[rows, columns], iou)
    assert len(rows) == (boxes[20:, :1] == boxes[:20, 0]).sum()


def test_nothing_known_overlaps_nothing():
    assert KnownBoxes().largest_overlap(np.ones((3, 6))).tolist() == [0, 0, 0]
    assert KnownBoxes.of_record(record(lesions=[(3, BOX)])).largest_overlap(np.zeros((0, 6))).shape == (0,)


def test_tracklet_overlaps_are_key_slice_ious():
    known = KnownBoxes.of_record(record(lesions=[(5, BOX), (7, FAR)]))
    found = tracklets((4, BOX, [0.9] * 3), (6, FAR, [0.9] * 3), (9, BOX, 0.9))
    np.testing.assert_allclose(tracklet_overlaps(found, known), [[1, 0], [0, 1], [0, 0]])


def test_the_best_overlap_is_that_of_a_slice_of_both():
    found = tracklets((4, BOX, [0.9, 0.9]), (4, FAR, 0.9))
    half = [10.0, 10, 30, 20]
    for lesions, expected in (([(5, half)], [0.5, 0]), ([(5, half), (4, BOX)], [1, 0]), ([(6, BOX)], [0, 0])):
        known = KnownBoxes.of_record(record(lesions=[(z, np.array(box)) for z, box in lesions]))
        np.testing.assert_allclose(best_overlap(found, known), expected)
    assert best_overlap(found, KnownBoxes()).tolist() == [0, 0]


def test_boxes_of_a_status():
    lesions = [{"id": status, "boxes": [[z, *BOX]], "status": status} for z, status in enumerate(STATUS_OF_RECORD)]
    known = KnownBoxes.of_record({"lesions": lesions})
    assert known.of_status(BoxStatus.UNCERTAIN).lesions == ["uncertain", "unsure"]
    negatives = known.of_status(BoxStatus.HARD_NEGATIVE)
    assert negatives.slices.tolist() == [5] and negatives.boxes.tolist() == [BOX.tolist()]
    assert len(known.of_status(BoxStatus.LESION, BoxStatus.UNCERTAIN)) == 5
