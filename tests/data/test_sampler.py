"""Which slices make up an epoch and a batch (Section VI-B)."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from detectron2.utils import comm

from lens_d2.data.sampler import EpochBatchSampler, SingleDatasetBatchSampler, SlicePool


def record(number, lesions, slices=20):
    return {
        "volume": f"v{number}",
        "num_slices": slices,
        "lesions": [
            {"status": status, "boxes": [[z, 0, 0, 5, 5] for z in range(first, last + 1)]}
            for first, last, status in lesions
        ],
    }


@pytest.fixture
def records():
    single = [record(i, [(4, 7, "annotation"), (10, 10, "annotation")]) for i in range(10)]
    universal = [record(i, [(3, 3, "annotation"), (12, 14, "uncertain")]) for i in range(16)]
    return single + universal


@pytest.fixture
def pools(records):
    return [
        [SlicePool.from_records(records, list(range(10)), with_negatives=True)],
        [SlicePool.from_records(records, list(range(10, 26)), with_negatives=False)],
    ]


def epoch_of(sampler):
    return list(islice(iter(sampler), sampler.epoch_length))


@pytest.mark.parametrize("records_alike, least, most", [(False, 900, 1100), (True, 100, 250)])
def test_hard_negatives_are_drawn_alike_or_those_of_every_record(records_alike, least, most):
    """A record with a hundred of them, ten with five each; 15 slices an epoch, so 1,500 in a hundred."""
    slices = [(z, z, "hard_negative") for z in range(100)]
    records = [record(0, slices, 100), *(record(i, slices[:5], 100) for i in range(1, 11))]
    records += [record(i, [(4, 4, "annotation")]) for i in range(11, 71)]
    pool = SlicePool.from_records(records, list(range(71)), with_negatives=False)
    rng, drawn = np.random.default_rng(0), Counter()
    for _ in range(100):
        samples = pool.draw(0.5, rng, hard_negative_ratio=0.25, records_alike=records_alike)
        drawn.update(r for r, _ in samples if r < 11)
    assert sum(drawn.values()) == 100 * 15
    assert least < drawn[0] < most


def test_hard_negatives_follow_the_weights_of_their_records():
    """Two records of 40 hard negatives and 20 lesions, one of which counts half."""
    slices = [(z, z, "hard_negative") for z in range(40)] + [(z, z, "annotation") for z in range(40, 60)]
    records = [{**record(0, slices, 60), "weight": 0.5}, record(1, slices, 60)]
    pool = SlicePool.from_records(records, [0, 1], with_negatives=False)
    rng, drawn = np.random.default_rng(0), Counter()
    for _ in range(100):
        drawn.update(r for r, z in pool.draw(0.5, rng, hard_negative_ratio=0.5) if z < 40)
    assert sum(drawn.values()) == 100 * 15
    assert drawn[0] == pytest.approx(500, abs=60)


def test_an_epoch_of_slices_has_each_slice_with_a_lesion_once():
    """Two lesions that share a slice; hard negatives on the slice of a lesion and on one of their own."""
    lesions = [(3, 5, "annotation"), (5, 6, "mined"), (5, 5, "hard_negative"), (9, 9, "hard_negative")]
    pool = SlicePool.from_records([record(0, lesions)], [0], with_negatives=True, epoch="slices")
    assert [(r, z.tolist()) for r, z in pool.lesions] == [(0, [3]), (0, [4]), (0, [5]), (0, [6])]
    assert [(r, z.tolist()) for r, z in pool.hard_negatives] == [(0, [9])]
    assert not {3, 4, 5, 6, 9} & set(pool.negatives[0][1].tolist())
    drawn = pool.draw(0.5, np.random.default_rng(0))
    assert Counter(z for _, z in drawn if z in (3, 4, 5, 6, 9)) == Counter([3, 4, 5, 6, 9]) and len(drawn) == 7


def test_one_slice_of_every_lesion_and_negatives_two_to_one(pools, records):
    drawn = pools[0][0].draw(0.5, np.random.default_rng(0))
    positive = [(r, z) for r, z in drawn if 4 <= z <= 7 or z == 10]
    assert Counter(r for r, z in positive if z < 10) == Counter(range(10))
    assert Counter(r for r, z in positive if z == 10) == Counter(range(10))
    assert len(drawn) - len(positive) == len(positive) / 2


def test_slices_of_a_lesion_are_drawn_anew_each_epoch(pools):
    rng = np.random.default_rng(0)
    seen = {z for _ in range(20) for r, z in pools[0][0].draw(0.5, rng) if r == 3 and 4 <= z <= 7}
    assert seen == {4, 5, 6, 7}


def test_a_partially_labelled_dataset_has_no_negatives_until_they_are_switched_on(records):
    indices = list(range(10, 26))
    assert {z for _, z in SlicePool.from_records(records, indices, False).draw(0.5, np.random.default_rng(0))} == {
        3
    }
    drawn = SlicePool.from_records(records, indices, True).draw(0.5, np.random.default_rng(0))
    assert len(drawn) == 24 and sum(z != 3 for _, z in drawn) == 8


@pytest.mark.parametrize(("weight", "times"), [(2.0, {2}), (0.5, {0, 1}), (1.25, {1, 2}), (0.01, {0, 1})])
def test_a_dataset_of_another_weight_is_drawn_more_or_less_often(weight, times):
    """Ten records with the weight, ten without; the negatives follow."""
    own = [(4, 7, "annotation"), (10, 10, "annotation")]
    records = [{**record(i, own), **({"weight": weight} if i < 10 else {})} for i in range(20)]
    pool = SlicePool.from_records(records, list(range(20)), with_negatives=True)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(20):
        drawn = pool.draw(0.5, rng)
        lesions = Counter((r, z == 10) for r, z in drawn if 4 <= z <= 7 or z == 10)
        weighted = [lesions[r, key] for r in range(10) for key in (False, True)]
        assert sum(weighted) == max(round(20 * weight), 1) and set(weighted) <= times
        assert all(lesions[r, key] == 1 for r in range(10, 20) for key in (False, True))
        assert len(drawn) == sum(lesions.values()) + round(sum(lesions.values()) / 2)
        seen.add(tuple(weighted))
    assert (len(seen) > 1) == (weight % 1 > 0)


def test_fractions_of_datasets_with_one_expert_are_kept_to():
    """Nine of ten and one of ten: successive draws without replacement would favour the latter."""
    weights = [0.9] * 20 + [0.1] * 20 + [1.0] * 3
    records = [{**record(i, [(4, 7, "annotation")]), "weight": own} for i, own in enumerate(weights)]
    pool, rng, times = SlicePool.from_records(records, list(range(43)), False), np.random.default_rng(0), Counter()
    for _ in range(400):
        drawn = pool.draw(0.0, rng)
        assert len(drawn) == 23
        times.update(r for r, _ in drawn)
    assert sum(times[r] for r in range(20)) / 8000 == pytest.approx(0.9, abs=0.01)
    assert sum(times[r] for r in range(20, 40)) / 8000 == pytest.approx(0.1, abs=0.01)
    assert all(times[r] == 400 for r in range(40, 43))


def test_a_weighted_dataset_always_takes_part():
    pool = SlicePool.from_records([{**record(0, [(4, 7, "annotation")]), "weight": 0.1}], [0], False)
    assert len(pool.draw(0.5, np.random.default_rng(0))) == 1


def test_uncertain_regions_are_no_positives(pools):
    assert all(slices.tolist() == [3] for _, slices in pools[1][0].lesions)


def test_every_batch_is_of_one_dataset(pools):
    for batch in epoch_of(SingleDatasetBatchSampler(pools, 4, 0.5, seed=3)):
        assert len(batch) == 4
        assert len({sample.record < 10 for sample in batch}) == 1


def test_an_epoch_has_all_full_batches_of_all_datasets(pools):
    sampler = SingleDatasetBatchSampler(pools, 4, 0.5, seed=3)
    assert sampler.epoch_length == 30 // 4 + 16 // 4
    assert sum(batch[0].record >= 10 for batch in epoch_of(sampler)) == 4


def test_batches_of_an_expert_mix_its_datasets(pools):
    pooled = SingleDatasetBatchSampler([[pool for (pool,) in pools]], 4, 0.5, seed=3)
    batches = epoch_of(pooled)
    assert len(batches) == (30 + 16) // 4
    assert sum({sample.record >= 10 for sample in batch} == {False, True} for batch in batches) > len(batches) / 2


def test_a_dataset_smaller_than_a_batch_still_takes_part(records):
    pool = SlicePool.from_records(records, [10], with_negatives=False)
    assert [len(b) for b in epoch_of(SingleDatasetBatchSampler([[pool]], 4, 0.5, seed=0))] == [4]


def test_the_stream_depends_on_the_seed_alone_and_resumes_anywhere(pools):
    whole = list(islice(iter(SingleDatasetBatchSampler(pools, 4, 0.5, seed=3)), 40))
    again = SingleDatasetBatchSampler(pools, 4, 0.5, seed=3)
    again.start_iter = 17
    assert list(islice(iter(again), 23)) == whole[17:]
    assert list(islice(iter(SingleDatasetBatchSampler(pools, 4, 0.5, seed=4)), 40)) != whole


def test_ranks_share_each_batch(pools, monkeypatch):
    whole = epoch_of(SingleDatasetBatchSampler(pools, 4, 0.5, seed=3))
    shares = []
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(epoch_of(SingleDatasetBatchSampler(pools, 4, 0.5, seed=3)))
    assert [a + b for a, b in zip(*shares, strict=True)] == whole


def test_nothing_to_train_on(records):
    with pytest.raises(ValueError, match="no slice"):
        SingleDatasetBatchSampler([[SlicePool([], [])]], 4, 0.5, seed=0)


@pytest.mark.parametrize("ranks", [3, 8])
def test_an_epoch_is_as_long_for_any_ranks(pools, monkeypatch, ranks):
    """The length of training is found before Detectron2 scales the batch to the ranks."""
    expected = SingleDatasetBatchSampler(pools, 4, 0.5, 0).epoch_length
    monkeypatch.setattr(comm, "get_world_size", lambda: ranks)
    sampler = SingleDatasetBatchSampler(pools, 4, 0.5, 0)
    assert sampler.epoch_length == expected
    with pytest.raises(ValueError, match=f"{ranks} ranks cannot share a batch of 4 evenly"):
        next(iter(sampler))


def test_batches_are_a_function_of_their_number():
    def stream(start=0):
        sampler = EpochBatchSampler(lambda rng: rng.permutation(10), 4, seed=1)
        sampler.start_iter = start
        assert sampler.epoch_length == 2
        batches = iter(sampler)
        return [next(batches) for _ in range(5)]

    assert stream() == stream() and stream(2) == stream()[2:] + stream(5)[:2]
    assert all(len({index.sample for index in sum(stream()[i : i + 2], [])}) == 8 for i in (0, 2))
    few = EpochBatchSampler(lambda rng: np.array([3, 4]), 5, seed=1)
    assert [index.sample for index in next(iter(few))] == [3, 4, 3, 4, 3]
