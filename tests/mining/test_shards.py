"""Shards: what is written is read; what is short, damaged or of another model is made again."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.blocks import blocks_cfg
from helpers.mining_proposals import proposals, random_detections, record, tracklets

from lens_d2.io.errors import DataError, WriteError
from lens_d2.mining.proposals import fingerprint
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


def test_a_sound_shard_is_not_made_again(tmp_path):
    made = []
    for _ in range(2):
        store(tmp_path, made=made).read(record())
    assert made == [record()["volume"]]


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    return data[:40] + bytes([data[40] ^ 255]) + data[41:]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b"", lambda data: b"no parquet at all"])
def test_a_damaged_shard_is_named_and_made_again(tmp_path, damage, caplog):
    made = []
    first = store(tmp_path, made=made).read(record())
    path = store(tmp_path).path(record())
    path.write_bytes(damage(path.read_bytes()))
    assert "damaged" in store(tmp_path).fault(record())
    with caplog.at_level("WARNING"):
        again = store(tmp_path, made=made).read(record())
    assert str(path) in caplog.text
    assert len(made) == 2
    np.testing.assert_array_equal(again["fused"].slice_boxes, first["fused"].slice_boxes)


def test_another_model_or_sub_volume_is_not_trusted(tmp_path):
    made = []
    store(tmp_path, "one", made).read(record())
    store(tmp_path, "two", made).read(record())
    assert len(made) == 2
    assert store(tmp_path, "one").fault(record()) == "outdated, it has another fingerprint"
    other = record("000002_01_01")
    store(tmp_path, "two").path(record()).rename(store(tmp_path, "two").path(other))
    assert store(tmp_path, "two").fault(other) == "outdated, it has another name"


def test_without_a_model_an_absent_shard_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match="000001_01_01_001-020.parquet: absent"):
        ShardStore(tmp_path, "model").read(record())


def test_names_that_no_file_can_have_stay_apart(tmp_path):
    one, two = {"volume": "a/b"}, {"volume": "a b"}
    assert store(tmp_path).path(one) != store(tmp_path).path(two)
    assert store(tmp_path).path(one).parent == tmp_path


def test_nothing_half_written_is_left_when_writing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(WriteError, match="cannot be written: killed"):
        store(tmp_path).write(record())
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_is_of_the_weights_and_of_what_proposals_depend_on(tmp_path):
    model = torch.nn.Linear(2, 2)
    first = fingerprint(blocks_cfg(tmp_path), model)
    elsewhere = ("MODEL.DENSENET.WEIGHTS", "moved.pth", "INPUT.CACHE_DIR", "moved", "MODEL.FPR.FC_DIM", 3)
    assert fingerprint(blocks_cfg(tmp_path, *elsewhere), model) == first
    for key, value in (("TEST.LINK_IOU", 0.4), ("INPUT.SLICE_INTERVAL", 2.5), ("MODEL.AFP.CONV_DIM", 4)):
        assert fingerprint(blocks_cfg(tmp_path, key, value), model) != first
    assert fingerprint(blocks_cfg(tmp_path), torch.nn.Linear(2, 2)) != first
