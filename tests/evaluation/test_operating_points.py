"""Thresholds keep their promise on the set they were found on; calibration says what shares say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.evaluation.operating_points import FPS, OperatingPoints, find_operating_points, fit_calibration
from lens_d2.evaluation.protocols.lens3d import lens3d
from lens_d2.evaluation.sets import BoxDetections, BoxTruth

LESION = [10, 10, 2, 20, 20, 4]


def made_up(seed: int, volumes: int = 20, wrong: int = 6) -> tuple[BoxTruth, BoxDetections]:
    """A lesion in each volume, found with a score of its own, and false positives with lower ones on average."""
    rng = np.random.default_rng(seed)
    truth = BoxTruth(
        [f"v{i}" for i in range(volumes)], np.arange(volumes), np.tile(np.array(LESION, float), (volumes, 1))
    )
    boxes, volume, scores = [], [], []
    for v in range(volumes):
        boxes += [LESION, *[[100 + 30 * i, 50, 2, 110 + 30 * i, 60, 4] for i in range(wrong)]]
        volume += [v] * (wrong + 1)
        scores += [rng.beta(4, 2), *rng.beta(2, 4, wrong)]
    return truth, BoxDetections(np.array(volume), np.array(boxes, float), np.array(scores))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), wrong=st.integers(0, 8))
def test_a_threshold_lets_in_no_more_false_positives_than_it_says(seed, wrong):
    truth, detections = made_up(seed, wrong=wrong)
    points = find_operating_points(truth, detections)
    detection, _ = lens3d().pairs(truth, detections)
    false = np.ones(len(detections), bool)
    false[detection] = False
    for fps, threshold in points.thresholds.items():
        let_in = detections.scores >= threshold
        assert (false & let_in).sum() <= fps * len(truth.volumes)
        below = detections.scores[~let_in]
        if len(below):  # and the next detection would be one false positive too many
            assert (false & (detections.scores >= below.max())).sum() > fps * len(truth.volumes)
    assert list(points.thresholds) == list(FPS)


def test_false_positives_of_score_1_can_be_too_many():
    truth, _ = made_up(0)
    far = np.tile([900.0, 900, 5, 910, 910, 6], (50, 1))
    detections = BoxDetections(np.zeros(50, int), far, np.ones(50))
    points = find_operating_points(truth, detections, fps=(0.5, 1e9))
    assert points.thresholds[0.5] > 1 and points.thresholds[1e9] == 1


def test_probabilities_are_the_shares_of_lesions():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.01, 0.99, 40_000)
    odds = np.log(scores / (1 - scores))
    share = 1 / (1 + np.exp(-(0.5 * odds - 1.0)))
    slope, intercept = fit_calibration(scores, rng.uniform(size=len(scores)) < share)
    assert slope == pytest.approx(0.5, abs=0.03) and intercept == pytest.approx(-1.0, abs=0.05)
    points = OperatingPoints({1.0: 0.5}, slope, intercept)
    assert points.probability([0.8])[0] == pytest.approx(1 / (1 + np.exp(-(0.5 * np.log(4) - 1))), abs=0.02)


def test_the_order_of_detections_stays():
    scores = np.linspace(0.05, 0.95, 50)
    slope, _ = fit_calibration(scores, scores < 0.5)  # a detector that is wrong throughout
    assert slope == 0.0


@pytest.mark.parametrize("is_lesion", [np.zeros(0, bool), np.zeros(5, bool), np.ones(5, bool)])
def test_few_detections_of_one_kind_still_give_numbers(is_lesion):
    slope, intercept = fit_calibration(np.full(len(is_lesion), 0.7), is_lesion)
    assert np.isfinite([slope, intercept]).all()


def test_the_rate_of_a_score_and_the_way_through_a_checkpoint():
    points = OperatingPoints({0.5: 0.9, 1.0: 0.8, 4.0: 0.3}, 1.2, -0.4, "validation patients")
    assert [points.rate(s) for s in (0.95, 0.85, 0.3, 0.1)] == [0.5, 1.0, 4.0, None]
    assert OperatingPoints.from_dict(points.to_dict()) == points
    for damaged in ({}, {"thresholds": [1], "slope": 1, "intercept": 0}, {"thresholds": {}, "slope": None}):
        with pytest.raises(ValueError, match="no operating points"):
            OperatingPoints.from_dict(damaged)
