"""Loaders: what they hand to workers, what they do with bad input, which slices they draw."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from collections import Counter
from contextlib import closing
from itertools import permutations

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.blocks import EXPERTS, blocks_cfg, register_blocks
from helpers.ledger_rows import row, table_of
from threadpoolctl import threadpool_info, threadpool_limits
from torch.utils.data import Dataset

from lens_d2.config import load_config
from lens_d2.data import loader
from lens_d2.data.loader import (
    SampleLoader,
    build_batch_sampler,
    build_train_loader,
    dataset_numbers,
    load_records,
    load_training_records,
    share_of_patients,
)
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
    with closing(build_train_loader(cfg)) as loader:
        for path in (tmp_path / "data").rglob("*.nii"):
            path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(DataError, match=r"\.nii: "):
            next(iter(loader))
    assert not multiprocessing.active_children()


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
def test_free_slices_are_negatives_where_every_lesion_has_a_box_on_every_slice(repo_root, names):
    """V_M has all lesions, each on one slice."""
    cfg = load_config(repo_root / "configs/phantom/harvester.yaml", ["DATASETS.TRAIN", names])
    lesion = {"status": "annotation", "boxes": [[3, 0, 0, 5, 5]]}
    records = [{"expert": "deeplesion", "num_slices": 20, "lesions": [lesion]} for _ in range(16)]
    assert build_batch_sampler(cfg, records).pools[0][0].negatives == []
    for name, number in (("phantom_deeplesion_vm", 0), ("phantom_deeplesion_1k_val", len(records))):
        cfg.DATASETS.TRAIN = (name,)
        assert len(build_batch_sampler(cfg, records).pools[0][0].negatives) == number


@pytest.mark.parametrize("combine, negatives", [("experts", 3), ("pooling", 3), ("positive_pooling", 0)])
def test_pooled_datasets_share_batches_and_positive_pooling_has_no_negatives(tmp_path, combine, negatives):
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path, "DATASETS.COMBINE", combine)
    sampler = build_batch_sampler(cfg, load_training_records(cfg))
    assert [len(pools) for pools in sampler.pools] == ([1] * 4 if combine == "experts" else [4])
    assert sum(bool(pool.negatives) for pools in sampler.pools for pool in pools) == negatives


def test_a_sub_volume_is_in_one_training_dataset(tmp_path):
    names = register_blocks(tmp_path / "data")
    records = DatasetCatalog.get(names[0])
    DatasetCatalog.register("blocks_again", lambda: records[1:2])
    MetadataCatalog.get("blocks_again").set(expert="deeplesion", fully_labelled=True)
    try:
        cfg = blocks_cfg(tmp_path, "DATASETS.TRAIN", (names[0], "blocks_again"))
        with pytest.raises(DataError, match="deeplesion_1 is in blocks_deeplesion and in blocks_again"):
            load_training_records(cfg)
    finally:
        DatasetCatalog.remove("blocks_again")
        MetadataCatalog.remove("blocks_again")


def test_a_smaller_share_is_a_part_of_a_larger_one_and_patients_stay_whole():
    records = [{"patient": f"p{n // 2}", "volume": f"v{n}"} for n in range(40)]
    chosen = {}
    for share in (0.01, 0.1, 0.25, 0.5, 1.0):
        own = share_of_patients(records, share, seed=1)
        chosen[share] = [record["volume"] for record in own]
        assert len(own) == 2 * max(round(20 * share), 1)
        assert len({record["patient"] for record in own}) == len(own) // 2
    ordered = list(chosen.values())
    assert all(set(small) < set(large) for small, large in zip(ordered, ordered[1:], strict=False))
    assert chosen[1.0] == [record["volume"] for record in records]
    assert [r["volume"] for r in share_of_patients(records, 0.25, seed=1)] == chosen[0.25]
    assert [r["volume"] for r in share_of_patients(records, 0.25, seed=2)] != chosen[0.25]


def test_shares_and_weights_of_the_training_datasets(tmp_path):
    """Four sub-volumes a dataset, each of its own patient, with two lesions each."""
    register_blocks(tmp_path)
    opts = ["DATASETS.SHARES", (("blocks_luna", 0.5),), "DATASETS.WEIGHTS", (("blocks_lits", 2.0),)]
    cfg = blocks_cfg(tmp_path, *opts)
    records = load_training_records(cfg)
    number = {expert: sum(record["expert"] == expert for record in records) for expert in EXPERTS}
    assert number == {"deeplesion": 4, "luna": 2, "lits": 4, "nih_ln": 4}
    assert {record["expert"] for record in records if record.get("weight") == 2.0} == {"lits"}
    batches = build_batch_sampler(cfg, records).draw_epoch(np.random.default_rng(0))
    drawn = Counter(records[sample.record]["expert"] for batch in batches for sample in batch)
    assert drawn == {"deeplesion": 8, "luna": 4, "lits": 24, "nih_ln": 12}  # with half as many negatives
    cfg.DATASETS.TRAIN = ("blocks_nih_ln",)  # a stage may train on some of the datasets
    assert load_training_records(cfg) == [record for record in records if record["expert"] == "nih_ln"]


def test_a_ledger_is_cut_to_the_shares_too(tmp_path):
    register_blocks(tmp_path)
    cfg = blocks_cfg(
        tmp_path, "DATASETS.SHARES", (("blocks_luna", 0.5),), "DATASETS.LEDGER", str(tmp_path / "x.csv")
    )
    names = [record["volume"] for record in load_records(("blocks_luna",))]
    rows = [row(volume=name, lesion=f"{name}/new", annotation="") for name in names]
    table_of(*rows).to_csv(tmp_path / "x.csv", index=False)
    records = [record for record in load_training_records(cfg) if record["expert"] == "luna"]
    assert len(records) == 2 and all(record["lesions"][-1]["id"].endswith("/new") for record in records)
    table_of(*rows, row(volume="nowhere", lesion="nowhere/new", annotation="")).to_csv(
        tmp_path / "x.csv", index=False
    )
    with pytest.raises(DataError, match="nowhere"):
        load_training_records(cfg)


def test_a_ledger_is_about_one_dataset_s_volumes(tmp_path, monkeypatch):
    """Two datasets may have sub-volumes of one name, unless a ledger is about it."""
    register_blocks(tmp_path)
    shared = [{**record, "expert": "lits"} for record in load_records(("blocks_luna",))]
    monkeypatch.setattr(DatasetCatalog, "data", {**DatasetCatalog.data, "blocks_lits": lambda: shared})
    cfg = blocks_cfg(tmp_path)
    name = shared[0]["volume"]
    assert [r["expert"] for r in load_training_records(cfg) if r["volume"] == name] == ["luna", "lits"]
    table_of(row(volume=name, lesion=f"{name}/new", annotation="")).to_csv(tmp_path / "x.csv", index=False)
    cfg.DATASETS.LEDGER = str(tmp_path / "x.csv")
    with pytest.raises(DataError, match=f"its {name} may be that of luna or that of lits"):
        load_training_records(cfg)


@pytest.mark.parametrize(
    ("key", "pairs", "fault"),
    [
        ("SHARES", (("blocks_luna", 0.5), ("blocks_luna", 0.7)), "names a dataset twice"),
        ("SHARES", (("blocks_luna", 1.5),), "at most 1"),
        ("SHARES", (("blocks_luna", 0.0),), "above 0"),
        ("SHARES", ("blocks_luna", 0.5), "give pairs"),
        ("WEIGHTS", (("blocks_luna", -1.0),), "above 0"),
        ("WEIGHTS", (("blocks_luna", float("nan")),), "above 0"),
        ("WEIGHTS", (("blocks_luna", "twice"),), "give pairs"),
    ],
)
def test_a_share_or_weight_that_cannot_be_used_is_one_line(tmp_path, key, pairs, fault):
    cfg = blocks_cfg(tmp_path, f"DATASETS.{key}", pairs)
    with pytest.raises(DataError, match=fault) as error:
        dataset_numbers(cfg, key, 1.0)
    assert f"DATASETS.{key}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("end", ["use()", "start_processes(lambda rank: use(), nprocs=1, start_method='fork')"])
def test_a_process_ends_though_its_loader_is_open(repo_root, end):
    """Workers ignore the signal by which Python would end them."""
    code = (
        "from torch.multiprocessing import start_processes\n"
        "from lens_d2.data.loader import SampleLoader\n"
        "def use():\n"
        "    global loader\n"
        "    loader = SampleLoader(list(range(4)), collate_fn=list, num_workers=1)\n"
        f"    next(iter(loader))\n{end}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


class Threads(Dataset):
    """Of what the libraries of a process compute with."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return [pool["num_threads"] for pool in threadpool_info()]


@pytest.mark.parametrize(("workers", "expected"), [(0, 2), (1, 1)])
def test_a_worker_computes_with_one_thread(workers, expected):
    """Else NumPy's BLAS would use all cores in every worker."""
    with threadpool_limits(2), closing(SampleLoader(Threads(), collate_fn=list, num_workers=workers)) as own:
        (threads,) = next(iter(own))
    assert threads and max(threads) == expected


def test_a_worker_whose_rank_has_ended_ends(monkeypatch):
    ended = []
    monkeypatch.setattr(loader.os, "_exit", ended.append)
    monkeypatch.setattr(loader.preemption, "ignore", lambda: None)
    monkeypatch.setattr(loader, "threadpool_limits", lambda number: None)  # this is no worker
    loader._begin_worker(os.getppid(), 0)
    assert ended == []
    loader._begin_worker(os.getppid() + 1, 0)
    assert ended == [1]
