"""LUNA16's protocol against a plain loop and scikit-learn's curve, and its rules one by one."""

import numpy as np
import pytest
from helpers.protocol_cases import FEW, SEEDS, scores, volumes
from hypothesis import given

from benchmarks.protocols import loop_luna16
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.sets import Candidates, NoduleTruth


@given(SEEDS)
@FEW
def test_luna16(seed):
    rng = np.random.default_rng(seed)
    scans = volumes(rng)

    def findings(number):
        diameters = rng.choice([4.0, 6.0, 8.0, 10.0], number)  # integers: hits exactly at the radius
        return np.sort(rng.integers(0, scans, number)), rng.integers(0, 20, (number, 3)).astype(float), diameters

    nodules, others = findings(rng.integers(1, 3 * scans + 1)), findings(rng.integers(0, 4 * scans))
    if rng.random() < 0.5:  # the real lists of excluded findings repeat the nodules
        others = nodules
    truth = NoduleTruth([f"s{v}" for v in range(scans)], *nodules, *others)
    number = int(rng.integers(1, 200))
    points = rng.integers(0, 20, (number, 3)).astype(float)
    candidates = Candidates(rng.integers(0, scans, number), points, scores(rng, number))
    most = int(rng.choice([1, 3, 100]))
    ours = PROTOCOLS.get("luna16")(max_candidates=most).evaluate(truth, candidates).metrics
    loop = loop_luna16(truth, candidates, most)
    for key, value in loop.items():
        if key not in ("sensitivity", "cpm"):
            assert ours[key] == value, key
    # The rates that the challenge's script multiplies back may miss an exact count by the last bit.
    nudged = [loop_luna16(truth, candidates, most, fps=[f * (1 + e)])["sensitivity"][0]
              for f in ours["fps"] for e in (-1e-9, 0, 1e-9)]  # fmt: skip
    for got, options in zip(ours["sensitivity"], np.reshape(nudged, (-1, 3)), strict=True):
        assert min(options) - 1e-6 <= got <= max(options) + 1e-6


def sklearn_froc(truth, candidates):
    """The challenge's own way to the curve, through scikit-learn, for candidates that all take part."""
    from sklearn.metrics import roc_curve

    is_nodule, probability, missed = [], [], 0
    free = np.ones(len(candidates), dtype=bool)
    for volume, center, diameter in zip(truth.volume, truth.centers, truth.diameters, strict=True):
        gap = ((candidates.points - center) ** 2).sum(axis=1)
        hits = (candidates.volume == volume) & (gap < (diameter / 2) ** 2)
        free &= ~hits
        if hits.any():
            is_nodule.append(1)
            probability.append(candidates.scores[hits].max())
        else:
            missed += 1
    found = len(is_nodule)
    is_nodule += [0] * int(free.sum())
    probability += candidates.scores[free].tolist()
    fpr, tpr, _ = roc_curve(is_nodule, probability)
    return fpr * free.sum() / len(truth.volumes), tpr * found / (found + missed)


@given(SEEDS)
@FEW
def test_luna16_reads_scikit_learns_curve_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    scans, number = int(rng.choice([8, 16, 24])), int(rng.integers(40, 90))
    nodules = np.sort(rng.integers(0, scans, 20)), rng.integers(0, 20, (20, 3)).astype(float), np.full(20, 12.0)
    names, none = [f"s{v}" for v in range(scans)], (np.zeros(0, dtype=int), np.zeros((0, 3)), np.zeros(0))
    truth = NoduleTruth(names, *nodules, *none)
    points = rng.integers(0, 20, (number, 3)).astype(float)
    candidates = Candidates(rng.integers(0, scans, number), points, rng.integers(0, 30, number) / 30)
    fps, sensitivity = sklearn_froc(truth, candidates)
    if np.isfinite(fps).all() and np.isfinite(sensitivity).all():
        protocol = PROTOCOLS.get("luna16")()
        ours = protocol.evaluate(truth, candidates).metrics["sensitivity"]
        assert ours == pytest.approx(np.interp(protocol.fps, fps, sensitivity), abs=1e-12)


def luna_case(points, probabilities, nodules=((0, 0, 0, 10),), excluded=(), scans=1, most=100):
    def split(rows):
        rows = np.array(rows, dtype=float).reshape(-1, 4)
        return np.zeros(len(rows), dtype=int), rows[:, :3], rows[:, 3]

    truth = NoduleTruth([f"s{v}" for v in range(scans)], *split(nodules), *split(excluded))
    points = np.array(points, dtype=float).reshape(-1, 3)
    candidates = Candidates(np.zeros(len(points), dtype=int), points, np.array(probabilities, dtype=float))
    return PROTOCOLS.get("luna16")(max_candidates=most).evaluate(truth, candidates).metrics


def test_a_candidate_at_the_radius_is_no_hit():
    assert luna_case([[5, 0, 0]], [0.5])["false_positives"] == 1
    assert luna_case([[4.999999, 0, 0]], [0.5])["true_positives"] == 1


def test_a_candidate_on_two_nodules_hits_both_and_doubles_are_ignored():
    result = luna_case([[1, 0, 0], [1.5, 0, 0]], [0.4, 0.6], [(0, 0, 0, 10), (3, 0, 0, 10)])
    assert (result["true_positives"], result["ignored_double"], result["false_positives"]) == (2, 2, 0)


def test_excluded_findings_take_only_what_hits_no_nodule():
    result = luna_case(
        [[0, 0, 0], [40, 0, 0], [80, 0, 0]], [0.9, 0.8, 0.7], excluded=[(0, 0, 0, 10), (41, 0, 0, 10)]
    )
    assert (result["true_positives"], result["ignored_excluded"], result["false_positives"]) == (1, 1, 1)


@pytest.mark.parametrize("tied, kept", [(0, 3), (1, 2), (3, 0)])
def test_what_ties_with_the_first_candidate_too_many_goes_too(tied, kept):
    """Four candidates, three allowed: strictly above the fourth highest probability."""
    probabilities = [0.9, 0.8, 0.7, 0.1]
    probabilities[3 - tied : 3] = [0.1] * tied
    points = [[100 + 20 * n, 0, 0] for n in range(4)]
    assert luna_case(points, probabilities, most=3)["false_positives"] == kept
    assert luna_case(points[:3], probabilities[:3], most=3)["false_positives"] == 3
