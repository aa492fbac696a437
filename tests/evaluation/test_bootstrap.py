"""Weighted events against volumes that really are there several times; intervals and the paired comparison."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.evaluation.bootstrap import (
    draw_weights,
    interval,
    intervals,
    paired_comparison,
    resampled_sensitivities,
)
from lens_d2.evaluation.curves import FrocEvents
from lens_d2.evaluation.protocols import PROTOCOLS


def random_events(rng, tied: bool, num_volumes: int) -> FrocEvents:
    """False positives and hits at ranks of their own, or at the same ones."""
    num_fp, num_lesions = int(rng.integers(1, 60)), int(rng.integers(1, 40))
    if tied:
        num_ranks = int(rng.integers(1, 30))
        fp_rank = np.sort(rng.integers(0, num_ranks, num_fp))
        hit_rank = rng.integers(-1, num_ranks, num_lesions)
    else:
        num_ranks = num_fp + num_lesions
        ranks = rng.permutation(num_ranks)
        fp_rank, hit_rank = np.sort(ranks[:num_fp]), ranks[num_fp:]
        hit_rank = np.where(rng.random(num_lesions) < 0.3, -1, hit_rank)
    volume = rng.integers(0, num_volumes, num_fp)
    return FrocEvents(fp_rank, volume, hit_rank, rng.integers(0, num_volumes, num_lesions), num_volumes, num_ranks)


def copied(events: FrocEvents, weights: np.ndarray) -> FrocEvents:
    """The events with each volume as many times as it was drawn."""
    fp, lesion = weights[events.fp_volume], weights[events.lesion_volume]
    return FrocEvents(
        np.repeat(events.fp_rank, fp),
        np.repeat(events.fp_volume, fp),
        np.repeat(events.hit_rank, lesion),
        np.repeat(events.lesion_volume, lesion),
        events.num_volumes,
        events.num_ranks,
    )


def curve_of_single_events(events: FrocEvents):
    """The curve with a point for each event, copies of a volume's events one after the other."""
    hits = events.hit_rank[events.hit_rank >= 0]
    ranks = np.r_[events.fp_rank, hits]
    is_fp = np.r_[np.ones(len(events.fp_rank)), np.zeros(len(hits))][np.argsort(ranks, kind="stable")]
    return np.cumsum(is_fp) / events.num_volumes, np.cumsum(1 - is_fp) / events.num_lesions


@given(st.integers(0, 2**32 - 1), st.sampled_from(["lens3d", "p3d", "luna16"]))
@settings(max_examples=80, deadline=None)
def test_a_draw_is_the_evaluation_of_the_volumes_drawn(seed, name):
    rng = np.random.default_rng(seed)
    events = random_events(rng, tied=name == "luna16", num_volumes=int(rng.integers(1, 12)))
    protocol = PROTOCOLS.get(name)(fps=(0.125, 0.3, 0.5, 1, 2.5, 8))
    weights = draw_weights(events.num_volumes, 20, seed)
    drawn = resampled_sensitivities(events, protocol.fps, weights, protocol.count_side)
    for row, draw in zip(drawn, weights, strict=True):
        again = copied(events, draw)
        if again.num_lesions == 0:
            assert np.isnan(row).all()
            continue
        if name == "p3d":
            assert row == pytest.approx(protocol.read(*curve_of_single_events(again)), abs=1e-12)
            continue
        fp, hit = again.counts()
        points = np.r_[0, fp] / again.num_volumes, np.r_[0, hit] / again.num_lesions
        assert row == pytest.approx(np.interp(protocol.fps, *points), abs=1e-12)


def test_p3d_takes_the_lowest_of_points_that_share_a_count():
    """A false positive, then two hits, at one false positive a volume."""
    events = FrocEvents(np.array([1, 4]), np.array([0, 0]), np.array([0, 2, 3]), np.zeros(3, dtype=int), 1, 5)
    ones = np.ones((1, 1), dtype=np.int32)
    low = resampled_sensitivities(events, np.array([1.0]), ones, "left")
    high = resampled_sensitivities(events, np.array([1.0]), ones, "right")
    assert low.tolist() == [[pytest.approx(1 / 3)]] and high.tolist() == [[1.0]]


def test_drawing_every_volume_once_is_the_point_estimate():
    rng = np.random.default_rng(0)
    events = random_events(rng, tied=False, num_volumes=9)
    ones = np.ones((1, 9), dtype=np.int32)
    for name in ("lens3d", "p3d"):
        protocol = PROTOCOLS.get(name)()
        drawn = resampled_sensitivities(events, protocol.fps, ones, protocol.count_side)[0]
        assert drawn == pytest.approx(protocol.sensitivities(events))


def test_only_the_beginning_of_a_long_list_is_weighed():
    """Far more false positives than the budget needs: the same as with all of them."""
    rng = np.random.default_rng(1)
    events = FrocEvents(
        np.arange(5000) * 2, rng.integers(0, 20, 5000), rng.integers(0, 5000, 50) * 2 + 1,
        rng.integers(0, 20, 50), 20, 10001,
    )  # fmt: skip
    weights = draw_weights(20, 30, 0)
    fps = np.array([0.5, 8.0])
    beginning = resampled_sensitivities(events, fps, weights)
    for row, draw in zip(beginning, weights, strict=True):
        fp, hit = copied(events, draw).counts()
        assert row == pytest.approx(np.interp(fps, fp / 20, hit / draw[events.lesion_volume].sum()))


def test_draws_have_as_many_volumes_and_a_seed():
    weights = draw_weights(50, 200, 3)
    assert (weights.sum(axis=1) == 50).all() and weights.shape == (200, 50)
    assert (draw_weights(50, 200, 3) == weights).all() and (draw_weights(50, 200, 4) != weights).any()
    assert weights.mean(axis=0) == pytest.approx(np.ones(50), abs=0.35)


def test_intervals_cover_what_they_should():
    """Sensitivity of a detector that hits each of many lesions with probability 0.6: about 0.6 +- 1.96 sigma."""
    rng = np.random.default_rng(0)
    volumes = 400
    hit = rng.random(volumes) < 0.6
    none, each = np.array([], dtype=int), np.arange(volumes)
    events = FrocEvents(none, none, np.where(hit, each, -1), each, volumes, volumes)
    found = intervals(events, PROTOCOLS.get("lens3d")(), 1000, 0)
    low, high = found["average_sensitivity_ci"]
    sigma = np.sqrt(0.6 * 0.4 / volumes)
    assert low == pytest.approx(hit.mean() - 1.96 * sigma, abs=0.01)
    assert high == pytest.approx(hit.mean() + 1.96 * sigma, abs=0.01)
    assert np.allclose(found["sensitivity_ci"], [[low, high]] * 7)


def test_an_interval_without_a_draw_is_the_point():
    assert interval(np.full(5, np.nan), 0.25) == [0.25, 0.25]


def detector(rng, quality, volumes=120):
    hit = rng.random(volumes) < quality
    rank = rng.permutation(2 * volumes)
    return FrocEvents(
        np.sort(rank[:volumes]), rng.integers(0, volumes, volumes), np.where(hit, rank[volumes:], -1),
        np.arange(volumes), volumes, 2 * volumes,
    )  # fmt: skip


def test_paired_comparison():
    rng = np.random.default_rng(0)
    poor, good = detector(rng, 0.3), detector(rng, 0.9)
    protocol = PROTOCOLS.get("lens3d")()
    same = paired_comparison(good, good, protocol, 200, 0)
    assert same["difference"] == 0 and same["difference_ci"] == [0, 0] and same["p_value"] == 1
    better = paired_comparison(poor, good, protocol, 200, 0)
    low, high = better["difference_ci"]
    assert 0 < low < better["difference"] < high and better["p_value"] < 0.02
    worse = paired_comparison(good, poor, protocol, 200, 0)
    assert worse["difference"] == -better["difference"] and worse["p_value"] == better["p_value"]


def test_several_trainings_are_averaged_in_every_draw():
    rng, protocol = np.random.default_rng(1), PROTOCOLS.get("lens3d")()
    one, two, other = (random_events(rng, False, 9) for _ in range(3))
    both = paired_comparison([one, two], [other, other], protocol, 200, 0)
    single = [paired_comparison(events, other, protocol, 200, 0) for events in (one, two)]
    assert both["difference"] == pytest.approx(np.mean([each["difference"] for each in single]))
    assert both["average_sensitivity"][1] == single[0]["average_sensitivity"][1]
    assert paired_comparison([one, one], [other], protocol, 200, 0)["difference_ci"] == single[0]["difference_ci"]
