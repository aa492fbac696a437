"""MGTM-SLLP: lesions without a label on the slices that have one, and all of them on the neighbouring slices."""

import numpy as np
import pandas as pd
from helpers.mining_proposals import proposals, record, tracklets

from lens_d2.data.ledger.table import check_ledger
from lens_d2.inference.tracker import BoxTracker
from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import STRATEGIES, CrossSlice, MissingGroundTruth, PatientVolume

MARK = np.array([10.0, 10, 30, 30])
MISSED = np.array([60.0, 60, 80, 80])


def volume(*runs):
    return [PatientVolume.start(record(lesions=[(5, MARK)]), proposals(fused=tracklets(*runs)))]


def test_registered_under_its_name():
    assert STRATEGIES.get("MissingGroundTruth") is MissingGroundTruth


def test_only_the_box_on_the_marked_slice_is_mined():
    (finding,) = MissingGroundTruth()(volume((4, MARK, [0.9] * 3), (4, MISSED, [0.3, 0.8, 0.4])))
    assert finding.slice_boxes[:, 0].tolist() == [5] and finding.slice_boxes[0, 1:5].tolist() == MISSED.tolist()
    assert finding.annotation is None and finding.status == "annotation"


def test_what_is_unsure_brief_or_elsewhere_is_not_mined():
    unsure, brief, elsewhere = (4, MISSED, [0.9, 0.4, 0.9]), (4, MISSED, [0.9, 0.9]), (6, MISSED, [0.9] * 4)
    for run in (unsure, brief, elsewhere):
        assert MissingGroundTruth()(volume(run)) == []
    assert len(MissingGroundTruth(min_slices=2, score_thresh=0.3)(volume(unsure, brief))) == 2


def test_slices_that_linking_adds_are_not_mined():
    """Lesion-Harvester's tracker extends each stack by a slice at both ends, where nothing was detected."""
    one = record(lesions=[(5, MARK)])
    boxes = np.array([[5, *MARK, 0.9], [6, *MARK, 0.8], [5, *MISSED, 0.9]])
    found = BoxTracker()(boxes, one["num_slices"])
    assert np.unique(found.slice_boxes[:, 0]).tolist() == [4, 5, 6, 7]
    patient = [PatientVolume.start(one, proposals(fused=found))]
    assert MissingGroundTruth()(patient) == []
    strategies = {"MissingGroundTruth": MissingGroundTruth(min_slices=1), "CrossSlice": CrossSlice()}
    mined = {(row.strategy, row.slice) for row in mine_patient(patient, strategies, 0.5)}
    assert mined == {("MissingGroundTruth", 5), ("CrossSlice", 6)}


def test_with_propagation_both_lesions_get_their_other_slices():
    strategies = {"MissingGroundTruth": MissingGroundTruth(), "CrossSlice": CrossSlice()}
    patient = volume((4, MARK, [0.9] * 3), (4, MISSED, [0.3, 0.8, 0.4]))
    rows = mine_patient(patient, strategies, 0.5)
    found = {(row.lesion, row.slice): row.strategy for row in rows}
    name = "000001_01_01_001-020"
    assert found == {
        (f"{name}/fused-1", 5): "MissingGroundTruth",
        (f"{name}/0", 4): "CrossSlice",
        (f"{name}/0", 6): "CrossSlice",
        (f"{name}/fused-1", 4): "CrossSlice",
        (f"{name}/fused-1", 6): "CrossSlice",
    }
    assert {(row.lesion, row.annotation) for row in rows} == {(f"{name}/0", f"{name}/0"), (f"{name}/fused-1", "")}
    check_ledger(pd.DataFrame(rows), [one.record for one in patient], "ledger.parquet")
