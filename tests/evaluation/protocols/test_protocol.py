"""All protocols without lesions, without hits and without false positives."""

import numpy as np

from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.protocols.protocol import by_score, first_hits, ranks_of_hits
from lens_d2.evaluation.sets import BoxDetections, BoxTruth, Candidates, NoduleTruth, Tracklets


def test_without_lesions_or_hits_nothing_is_nan():
    empty = BoxTruth(["a", "b"], np.zeros(0, dtype=int), np.zeros((0, 6)))
    one = BoxTruth(["a", "b"], np.array([1]), np.array([[0.0, 0, 0, 5, 5, 5]]))
    none = BoxDetections(np.zeros(0, dtype=int), np.zeros((0, 6)), np.zeros(0))
    some = BoxDetections(np.array([0, 0]), np.array([[0.0, 0, 0, 5, 5, 5]] * 2), np.array([0.5, 0.5]))
    for truth in (empty, one):
        for detections in (none, some):
            result = PROTOCOLS.get("lens3d")().evaluate(truth, detections).metrics
            assert result["sensitivity"] == [0.0] * 7 and result["average_sensitivity"] == 0.0
    ints, floats = np.zeros(0, dtype=int), np.zeros(0)
    nothing = Tracklets(ints, floats, ints, floats, np.zeros((0, 4)), floats)
    result = PROTOCOLS.get("p3d")().evaluate(empty, nothing).metrics
    assert result["ap"] == 0.0 and result["sensitivity"] == [0.0] * 8
    series = NoduleTruth(["s"], *[np.zeros(0, dtype=int), np.zeros((0, 3)), np.zeros(0)] * 2)
    point = Candidates(np.array([0]), np.zeros((1, 3)), np.ones(1))
    result = PROTOCOLS.get("luna16")().evaluate(series, point).metrics
    assert result["cpm"] == 0.0 and result["false_positives"] == 1


def test_only_hits_are_a_level_curve():
    """No false positive at all: luna16 and lens3d give the last sensitivity everywhere, p3d too."""
    box = [[0.0, 0, 0, 5, 5, 0]]
    truth = BoxTruth(["a"], np.array([0, 0]), np.array([*box, [50.0, 50, 3, 60, 60, 3]]))
    found = BoxDetections(np.array([0]), np.array(box), np.array([0.9]))
    assert PROTOCOLS.get("lens3d")().evaluate(truth, found).metrics["sensitivity"] == [0.5] * 7
    tracklet = Tracklets(
        np.array([0]), np.ones(1), np.array([0]), np.zeros(1), np.array([[0.0, 0, 5, 5]]), np.ones(1)
    )
    assert PROTOCOLS.get("p3d")().evaluate(truth, tracklet).metrics["sensitivity"] == [0.5] * 8
    one, centers = np.array([0]), np.array([[0.0, 0, 0], [90, 0, 0]])
    none = (one[:0], np.zeros((0, 3)), np.zeros(0))
    nodules = NoduleTruth(["s"], np.array([0, 0]), centers, np.array([4.0, 4.0]), *none)
    candidates = Candidates(one, np.zeros((1, 3)), np.ones(1))
    assert PROTOCOLS.get("luna16")().evaluate(nodules, candidates).metrics["sensitivity"] == [0.5] * 7


def test_of_equal_scores_the_last_comes_first():
    """Also among many, where processors sort in blocks of their own."""
    scores = np.repeat([0.5, 0.25], 1000)
    assert by_score(scores).tolist() == [*range(999, -1, -1), *range(1999, 999, -1)]


def test_ranks_of_hits_and_of_the_others():
    order = by_score(np.array([0.1, 0.9, 0.5, 0.7]))
    rank, fp_rank = ranks_of_hits(order, np.array([2, 1, 2]))
    assert rank.tolist() == [2, 0, 2] and fp_rank.tolist() == [1, 3]
    assert first_hits(np.array([1, 0, 1]), rank, 3).tolist() == [0, 2, -1]
