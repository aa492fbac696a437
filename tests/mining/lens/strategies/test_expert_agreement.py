"""Tracklets of which several experts are sure, on hand-made proposals."""

import numpy as np
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.config import load_config
from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import ExpertAgreement

MARK, BOX = np.array([10.0, 10, 30, 30]), np.array([60.0, 60, 80, 80])


def mined(scores, **kw):
    found = tracklets((4, MARK, [0.9] * 3), *((4, BOX, [0.9] * 3) for _ in scores))
    found.expert_scores = np.array([[0.9] * 3, *scores])
    volume = record(lesions=[(5, MARK)]), proposals(deeplesion=found)
    return mine_patient(patient(volume), {"ExpertAgreement": ExpertAgreement(**kw)}, 0.5)


def test_the_own_expert_and_two_others():
    rows = mined([[0.8, 0.6, 0.5]])
    assert [(row.lesion, row.slice) for row in rows] == [("000001_01_01_001-020/agreed-1", z) for z in (4, 5, 6)]
    assert {(row.expert, row.status) for row in rows} == {("luna", "annotation")}
    assert mined([[0.8, 0.6, 0.4]]) == mined([[0.4, 0.9, 0.9]]) == []
    assert len(mined([[0.8, 0.6, 0.4]], experts=1)) == 3


def test_detections_without_experts_scores_agree_with_nothing():
    found = tracklets((4, BOX, [0.9]))
    found.expert_scores = None
    assert ExpertAgreement()(patient((record(), proposals(deeplesion=found)))) == []


def test_from_a_config():
    strategy = ExpertAgreement(load_config("", ["MINING.EXPERT_AGREEMENT.EXPERTS", 1, "MINING.IOU", 0.4]))
    assert (strategy.score_thresh, strategy.experts, strategy.iou) == (0.5, 1, 0.4)
