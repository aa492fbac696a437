"""Cross-slice box propagation (LENS, Section V-A) on hand-made proposals."""

import numpy as np
import pytest
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import CrossSlice

BOX = np.array([10.0, 10, 30, 30])


class TestCrossSlice:
    def test_a_tracklet_on_an_annotation_gives_its_other_slices(self):
        volume = (record(lesions=[(5, BOX)]), proposals(fused=tracklets((3, BOX + 1, [0.4, 0.5, 0.9, 0.5, 0.02]))))
        rows = mine_patient(patient(volume), {"CrossSlice": CrossSlice()}, 0.5)
        assert [row.slice for row in rows] == [3, 4, 6, 7]
        assert {row.lesion for row in rows} == {row.annotation for row in rows} == {volume[0]["lesions"][0]["id"]}
        assert {row.status for row in rows} == {"annotation"}
        assert [row.score for row in rows] == pytest.approx([0.4, 0.5, 0.5, 0.02])
        assert rows[0][3:7] == pytest.approx(tuple(BOX + 1))
        assert np.isnan(rows[0].distance)

    def test_the_key_slice_decides(self):
        """A tracklet that overlaps an annotation on the slices beside the key slice alone is another one."""
        shifted = [BOX, BOX + 15, BOX]
        volume = (record(lesions=[(5, BOX)]), proposals(fused=tracklets((4, shifted, [0.9] * 3), (6, BOX, [0.9]))))
        assert CrossSlice()(patient(volume)) == []

    @pytest.mark.parametrize("iou, found", [(0.5, 0), (0.4, 1)])
    def test_theta(self, iou, found):
        half = np.array([10.0, 10, 30, 20])  # IoU 0.5 exactly: not above
        volume = (record(lesions=[(5, BOX)]), proposals(fused=tracklets((4, half, [0.9] * 3))))
        assert len(CrossSlice(iou=iou)(patient(volume))) == found

    def test_an_annotation_follows_its_best_tracklet(self):
        found = tracklets((4, BOX + 4, [0.9] * 3), (5, BOX + 1, [0.1] * 3))
        (finding,) = CrossSlice()(patient((record(lesions=[(5, BOX)]), proposals(fused=found))))
        np.testing.assert_array_equal(finding.slice_boxes[0, 1:5], BOX + 1)

    def test_a_lesion_marked_twice_is_propagated_once(self):
        volume = (record(lesions=[(5, BOX), (7, BOX)]), proposals(fused=tracklets((4, BOX, [0.9] * 5))))
        rows = mine_patient(patient(volume), {"CrossSlice": CrossSlice()}, 0.5)
        assert [row.slice for row in rows] == [4, 6, 8]

    def test_the_group_of_proposals_can_be_an_experts(self):
        found = proposals(luna=tracklets((4, BOX, [0.9] * 3)))
        assert CrossSlice()(patient((record(lesions=[(5, BOX)]), found))) == []
        assert len(CrossSlice(group="luna")(patient((record(lesions=[(5, BOX)]), found)))) == 1
