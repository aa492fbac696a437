"""Shards: what is written is read; what is short, damaged or of another model is made again."""

import dataclasses

import numpy as np
from helpers.mining_proposals import proposals, random_detections, record, tracklets

from lens_d2.data.cache import RESOLVED
from lens_d2.mining.shards import ShardStore


def store(root, fingerprint="model", made=None, found=None):
    """A store whose model proposes the same at random every time, and notes what it made."""
    found = found or proposals(
        fused=random_detections(np.random.default_rng(0)), luna=tracklets((3, [1, 2, 3, 4], 0.9))
    )

    def make(record):
        if made is not None:
            made.append(record["volume"])
        return found

    return ShardStore(root, fingerprint, make)


def test_what_is_written_is_read(tmp_path):
    found = proposals(fused=random_detections(np.random.default_rng(1)), luna=tracklets((3, [1, 2, 3, 4], 0.5)))
    read = store(tmp_path, found=found).read(record())
    assert list(read) == list(found)
    for name, detections in found.items():
        for field in dataclasses.fields(detections):
            ours, theirs = getattr(read[name], field.name), getattr(detections, field.name)
            if theirs is None or not len(detections) and ours is None:
                continue
            assert ours.shape == theirs.shape, field.name
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, err_msg=field.name)


def test_a_volume_without_proposals_has_a_shard(tmp_path):
    read = store(tmp_path, found=proposals()).read(record())
    assert all(not len(found) and found.boxes.shape == (0, 6) for found in read.values())
    assert store(tmp_path).fault(record()) is None


def test_a_damaged_shard_is_named_and_made_again(tmp_path, caplog):
    made = []
    first = store(tmp_path, made=made).read(record())
    path = store(tmp_path).path(record())
    path.write_bytes(path.read_bytes()[:-7])
    with caplog.at_level("WARNING"):
        again = store(tmp_path, made=made).read(record())
    assert str(path) in caplog.text and made == [record()["volume"]] * 2
    np.testing.assert_array_equal(again["fused"].slice_boxes, first["fused"].slice_boxes)


def test_another_model_or_sub_volume_is_not_trusted(tmp_path):
    made = []
    store(tmp_path, "one", made).read(record())
    store(tmp_path, "two", made).read(record())
    assert len(made) == 2
    assert store(tmp_path, "one").fault(record()) == "outdated, it has another fingerprint"
    changed = {**record(), RESOLVED: ("a cache", "cache/v-1.b2nd")}
    assert store(tmp_path, "two").fault(changed) == "outdated, it has another source"
    other = record("000002_01_01")
    store(tmp_path, "two").path(record()).rename(store(tmp_path, "two").path(other))
    assert store(tmp_path, "two").fault(other) == "outdated, it has another name"
