"""Cross-dataset lesion mining (LENS, Section V-C) on hand-made proposals."""

import numpy as np
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import CrossDataset
from lens_d2.structures.status import BoxStatus

BOX = np.array([10.0, 10, 30, 30])


FAR = np.array([60.0, 60, 80, 80])


def boxes_of(finding):
    return [int(z) for z in finding.slice_boxes[:, 0]]


class TestCrossDataset:
    strategy = CrossDataset(experts=("luna", "lits"), score_thresh=0.5)

    def test_confident_boxes_of_single_type_experts_are_uncertain(self):
        found = proposals(
            luna=tracklets((3, FAR, [0.4, 0.6, 0.5, 0.7])),
            deeplesion=tracklets((3, BOX, 0.99)),
            fused=tracklets((3, BOX, 0.99)),
        )
        rows = mine_patient(patient((record(), found)), {"CrossDataset": self.strategy}, 0.5)
        assert [(row.slice, row.status) for row in rows] == [(4, "uncertain"), (6, "uncertain")]
        assert {row.lesion for row in rows} == {"000001_01_01_001-020/luna-0"}

    def test_not_where_an_annotation_or_a_mined_one_is(self):
        touching = BOX + 19
        found = proposals(luna=tracklets((4, touching, [0.9] * 3)))
        volumes = patient((record(lesions=[(5, BOX)]), found))
        assert boxes_of(self.strategy(volumes)[0]) == [4, 6]
        volumes[0].known.add("mined", np.array([[6, *BOX]]), BoxStatus.LESION)
        assert boxes_of(self.strategy(volumes)[0]) == [4]

    def test_two_experts_at_one_place_make_one_region(self):
        found = proposals(luna=tracklets((4, FAR, [0.6])), lits=tracklets((4, FAR + 1, [0.8])))
        (row,) = mine_patient(patient((record(), found)), {"CrossDataset": self.strategy}, 0.5)
        assert row.lesion.endswith("lits-0")
