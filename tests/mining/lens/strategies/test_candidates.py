"""Which tracklets may be missing annotations, and how they are labelled."""

import numpy as np
from helpers.mining_proposals import proposals, record, tracklets

from lens_d2.mining.calibration import Calibration
from lens_d2.mining.lens.strategies import PatientVolume
from lens_d2.mining.lens.strategies.candidates import find_candidates, on_best_slice
from lens_d2.structures.status import BoxStatus

MARK, SMALL, LARGE = (np.array(x, dtype=float) for x in ([70, 70, 90, 90], [10, 10, 20, 20], [40, 10, 70, 40]))


def found(*lesions):
    """Tracklets of (slice, box, score of their own expert); luna agrees with small ones, lits with large ones."""
    result = tracklets(*((z - 1, box, [score - 0.1, score, score - 0.1]) for z, box, score in lesions))
    small = result.boxes[:, 3] - result.boxes[:, 0] < 16
    result.expert_scores = np.column_stack([result.scores, np.where(small, 0.9, 0.1), np.where(small, 0.1, 0.5)])
    return proposals(deeplesion=result)


def candidates(volume):
    return find_candidates(volume, Calibration("own_vm"), 0.05)


def test_known_lesions_and_hard_negatives_are_no_candidates():
    marked = record(lesions=[(8, MARK)])
    volume = PatientVolume.start(marked, found((8, MARK, 0.9), (4, SMALL, 0.8), (12, LARGE, 0.7)))
    assert candidates(volume).tracklets.tolist() == [1, 2]
    volume.known.add("rejected", np.array([[12, *LARGE]]), BoxStatus.HARD_NEGATIVE)
    assert candidates(volume).tracklets.tolist() == [1]
    volume.known.add("unsure", np.array([[4, *SMALL]]), BoxStatus.UNCERTAIN)
    assert candidates(volume).tracklets.tolist() == [1]


def test_ranks_are_log_odds_of_two_experts_and_pieces_of_a_lesion_count_once():
    pieces = found((4, SMALL, 0.6), (7, SMALL + 1, 0.8), (15, SMALL, 0.5), (12, LARGE, 0.8))
    found_ones = candidates(PatientVolume.start(record(), pieces))
    assert found_ones.tracklets.tolist() == [1, 2, 3]  # the first piece touches the second
    np.testing.assert_allclose(found_ones.ranks, np.log([4 * 9, 9, 4]))
    assert found_ones.strata == [("below 16 mm", "luna")] * 2 + [("24-32 mm", "lits")]


def test_without_other_experts_the_own_score_ranks():
    alone = found((4, SMALL, 0.8))["deeplesion"]
    alone.expert_scores = alone.expert_scores[:, :1]
    volume = PatientVolume.start(record(), {"fused": tracklets(), "deeplesion": alone})
    found_ones = candidates(volume)
    np.testing.assert_allclose(found_ones.ranks, np.log(4))
    assert found_ones.strata == [("below 16 mm", "")]


def test_a_lesion_is_labelled_as_a_mark_is():
    boxes = np.array([[3, *SMALL, 0.5], [4, *SMALL, 0.8], [5, *SMALL, 0.7]])
    lesion, rest = on_best_slice("v", "v/1", boxes, True, precision=0.9)
    assert lesion.slice_boxes[:, 0].tolist() == [4] and lesion.status == "annotation" and lesion.precision == 0.9
    assert rest.slice_boxes[:, 0].tolist() == [3, 5] and rest.status == "uncertain" and rest.lesion == "v/1"
    (everything,) = on_best_slice("v", "v/1", boxes, False)
    assert len(everything.slice_boxes) == 3 and everything.status == "uncertain"
    assert len(on_best_slice("v", "v/1", boxes[:1], True)) == 1
