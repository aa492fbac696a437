"""Samples of classifiers: which detections are true, how they are drawn, their patches."""

import numpy as np
import pytest
from helpers.classifiers import detections_of, fpr_blocks, fpr_cfg, lesion, lpc_blocks

from lens_d2.data.cache import build_cache
from lens_d2.data.detection_samples import (
    DetectionSamples,
    Label,
    PatchDataset,
    label_detections,
    mirror_boxes,
)
from lens_d2.data.patches import PatchGrid
from lens_d2.data.sampler import SampleIndex
from lens_d2.io.errors import DataError


@pytest.fixture
def cfg(tmp_path):
    return fpr_cfg(tmp_path)


@pytest.fixture
def blocks(tmp_path):
    return fpr_blocks(tmp_path)


@pytest.mark.parametrize(
    "status, overlap, label",
    [
        ("annotation", 0.6, Label.TRUE_POSITIVE),
        ("mined", 0.6, Label.TRUE_POSITIVE),
        ("accepted", 0.6, Label.TRUE_POSITIVE),
        ("uncertain", 0.6, Label.UNUSED),
        ("unsure", 0.6, Label.UNUSED),
        ("hard_negative", 0.6, Label.FALSE_POSITIVE),
        ("annotation", 0.5, Label.UNUSED),
        ("annotation", 0.3, Label.UNUSED),
        ("uncertain", 0.3, Label.UNUSED),
        ("annotation", 0.25, Label.FALSE_POSITIVE),
        ("uncertain", 0.25, Label.FALSE_POSITIVE),
    ],
)
def test_the_rule_of_true_and_false_positives(status, overlap, label):
    found = detections_of([[4, 0, 0, 10, 10 * overlap]], [0])
    assert label_detections(found, [lesion(status, [4, 0, 0, 10, 10])]) == [label]


def test_a_lesion_beside_an_uncertain_region_is_true():
    found = detections_of([[4, 0, 0, 10, 10]], [0])
    lesions = [lesion("uncertain", [4, 0, 0, 10, 10]), lesion("mined", [4, 0, 0, 10, 9])]
    assert label_detections(found, lesions) == [Label.TRUE_POSITIVE]


def test_samples_come_from_volumes_with_detections_and_need_both_kinds():
    records = [
        {"volume": "a", "lesions": [lesion("annotation", [4, 0, 0, 10, 10])]},
        {"volume": "b", "lesions": []},
        {"volume": "c", "lesions": []},
    ]
    found = detections_of([[4, 0, 0, 10, 10], [4, 0, 0, 10, 4], [4, 50, 50, 60, 60]], [0, 1, 2])
    samples = DetectionSamples.from_detections(records, {"a": found, "b": found})
    assert samples.record.tolist() == [0, 0, 1, 1, 1] and samples.is_lesion.tolist() == [True] + [False] * 4
    np.testing.assert_array_equal(samples.boxes[1], [50, 50, 4, 60, 60, 4])
    with pytest.raises(DataError, match="0 true and 3 false"):
        DetectionSamples.from_detections(records, {"b": found})
    with pytest.raises(DataError, match="0 true and 0 false"):
        DetectionSamples.from_detections(records, {})


@pytest.mark.parametrize("false", [2, 50])
def test_an_epoch_has_two_false_positives_for_each_true_one(false):
    is_lesion = np.repeat([True, False], [10, false])
    count = len(is_lesion)
    samples = DetectionSamples(np.zeros(count, int), np.zeros((count, 6)), is_lesion, np.ones(count))
    drawn = samples.draw(np.random.default_rng(0), 2.0)
    assert len(drawn) == 30 and sorted(drawn[drawn < 10]) == list(range(10))
    repeats = np.bincount(drawn[drawn >= 10] - 10, minlength=false)
    assert repeats.sum() == 20 and repeats.max() == (1 if false == 50 else 10)


def scored(scores):
    """Detections of one slice box each, apart from one another."""
    found = detections_of([[4, 40 * i, 0, 40 * i + 10, 10] for i in range(len(scores))], np.arange(len(scores)))
    found.scores = np.array(scores)
    return found


def test_false_positives_below_the_score_threshold_are_not_trained_on():
    records = [{"volume": "a", "lesions": [lesion("annotation", [4, 0, 0, 10, 10])]}]
    detections = {"a": scored([0.02, 0.02, 0.1, 0.7])}
    samples = DetectionSamples.from_detections(records, detections, fp_score_thresh=0.1)
    assert samples.is_lesion.tolist() == [True, False, False]  # a true one stays, however low it scores
    assert samples.boxes[:, 0].tolist() == [0, 80, 120] and samples.weight.tolist() == [1, 1, 1]


@pytest.mark.parametrize("power, share", [(0.0, 1 / 4), (1.0, 1 / 2), (2.0, 3 / 4)])
def test_false_positives_are_drawn_by_the_power_of_their_score(power, share):
    """One of score 0.6 among three of 0.2: its share of the first draws."""
    records = [{"volume": "a", "lesions": [lesion("annotation", [4, 0, 0, 10, 10])]}]
    found = scored([0.02, 0.2, 0.2, 0.2, 0.6])
    samples = DetectionSamples.from_detections(records, {"a": found}, fp_score_power=power)
    draws = np.concatenate([samples.draw(np.random.default_rng(seed), 1.0) for seed in range(400)])
    assert np.isin(draws, [0, 1, 2, 3, 4]).all() and (draws == 0).sum() == 400
    assert (draws == 4).sum() / 400 == pytest.approx(share, abs=0.06)
    assert sorted(samples.draw(np.random.default_rng(0), 4.0)) == [0, 1, 2, 3, 4]  # none twice


def test_mirrored_samples_keep_box_and_lesion_together(cfg, blocks):
    records, detections = blocks
    samples = DetectionSamples.from_detections(records, detections)
    dataset = PatchDataset(
        records, samples, build_cache(cfg), PatchGrid((4, 24, 24), (3.0, 2.0, 2.0)), (6, 6, 3), True
    )
    number, places = int(np.flatnonzero(samples.is_lesion)[0]), set()
    for seed in range(8):
        sample = dataset[SampleIndex(number, seed)]
        inside = np.argwhere(sample["patch"][0].numpy() > 200)
        middle = inside[:, 2].mean() + 0.5
        assert sample["box"][0] - 1 < middle < sample["box"][3] + 1 and sample["is_lesion"] == 1
        places.add(round(middle))
    assert len(places) > 2
    np.testing.assert_array_equal(
        mirror_boxes(np.array([[1, 2, 3, 4, 5, 6.0]]), dataset.grid), [[20, 2, 3, 23, 5, 6]]
    )


def test_samples_of_proposals_know_what_they_are(tmp_path):
    records, positives, negatives = lpc_blocks(tmp_path)
    first, second, third = (r["volume"] for r in records)
    samples = DetectionSamples.from_proposals(
        records, {second: positives[second]}, {second: [], third: negatives[third]}
    )
    others = len(negatives[third])
    assert samples.record.tolist() == [1, 1] + [2] * others
    assert samples.is_lesion.tolist() == [True, True] + [False] * others
    np.testing.assert_array_equal(samples.boxes[:2], positives[second])
    with pytest.raises(DataError, match="0 true and"):
        DetectionSamples.from_proposals(records, {}, negatives)
