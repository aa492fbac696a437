"""Loaders: what they hand to workers, what they do with bad input, which slices they draw."""

import pickle
from itertools import permutations

import pytest
from helpers.blocks import EXPERTS, blocks_cfg, register_blocks

from lens_d2.config import load_config
from lens_d2.data.loader import build_batch_sampler, build_train_loader
from lens_d2.io.errors import DataError


def test_what_loaders_are_handed_pickles(tmp_path):
    """Ranks are spawned, and so are their loaders' workers."""
    register_blocks(tmp_path / "data")
    for combine in ("experts", "pooling", "positive_pooling"):
        loader = build_train_loader(blocks_cfg(tmp_path, "DATASETS.COMBINE", combine))
        dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
        batch = next(iter(loader.batch_sampler))
        assert len(collate([dataset[index] for index in batch])) == len(batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_input_in_a_loaders_worker_is_the_same_error(tmp_path, workers):
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path, "DATALOADER.NUM_WORKERS", workers)
    loader = build_train_loader(cfg)
    for path in (tmp_path / "data").rglob("*.nii"):
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"\.nii: "):
        next(iter(loader))


def test_training_goes_on_when_the_originals_are_unmounted(tmp_path):
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path)
    loader = build_train_loader(cfg)
    for record in loader.samples.records:
        loader.samples.mapper.cache.open(record)
    for expert in EXPERTS:
        (tmp_path / "data" / expert).rename(tmp_path / "data" / f"{expert} elsewhere")
    batches = iter(loader)
    assert all(len(next(batches)) for _ in range(6))


def test_a_resolved_record_is_opened_by_its_own_way_of_caching_alone(tmp_path):
    register_blocks(tmp_path / "data")
    fine, coarse = (
        build_train_loader(blocks_cfg(tmp_path, "INPUT.PIXEL_SPACING", spacing)).samples for spacing in (2.0, 4.0)
    )
    record = fine.records[0]
    shapes = [samples.mapper.cache.open(record).shape for samples in (fine, coarse)]
    assert shapes[0][2] > shapes[1][2]


@pytest.mark.parametrize("names", list(permutations(("phantom_deeplesion_vm", "phantom_deeplesion_vh"))))
def test_free_slices_are_negatives_where_all_parts_are_fully_labelled(repo_root, names):
    cfg = load_config(repo_root / "configs/phantom/harvester.yaml", ["DATASETS.TRAIN", names])
    lesion = {"status": "annotation", "boxes": [[3, 0, 0, 5, 5]]}
    records = [{"expert": "deeplesion", "num_slices": 20, "lesions": [lesion]} for _ in range(16)]
    assert build_batch_sampler(cfg, records).pools[0].negatives == []
    cfg.DATASETS.TRAIN = ("phantom_deeplesion_vm",)
    assert len(build_batch_sampler(cfg, records).pools[0].negatives) == len(records)
