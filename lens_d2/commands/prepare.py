"""Checks and preprocessing of datasets: ``lens-d2 prepare``."""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ..config import load_config
from ..data.cache import VolumeCache, build_cache, superseded
from ..data.datasets import register_all
from ..data.datasets.catalog import (
    DATASETS,
    PHANTOM,
    Faults,
    import_readers,
    imported_readers,
    read,
    root_of,
    write_lists,
)
from ..io.errors import DataError, WriteError, did_you_mean
from ..io.parallel import run_all


def setup(args: argparse.Namespace) -> tuple[list[str], CfgNode]:
    """Settle the names of the datasets and the config.

    Raises:
        DataError: a dataset is not registered, or the config cannot be read.
    """
    register_all(args.root)
    cfg = load_config(args.config_file)
    if args.cache_dir:
        cfg.INPUT.CACHE_DIR = args.cache_dir
    own = datasets_of(cfg) if args.config_file else DATASETS
    names = dict.fromkeys(args.names or own)
    unknown = [name for name in names if name not in DatasetCatalog]
    if unknown:
        known = (
            DatasetCatalog.list() if args.config_file else [*DATASETS, *(f"{PHANTOM}_{own}" for own in DATASETS)]
        )
        raise DataError(
            args.config_file or "NAME", f"no dataset {', '.join(unknown)}{did_you_mean(unknown[0], known)}"
        )
    return list(names), cfg


def datasets_of(cfg: CfgNode) -> list[str]:
    """Names of the datasets that the stages of a config read."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if "embedding" in cfg.STAGES:
        names += cfg.MODEL.EMBEDDING.DATASETS
    if cfg.MINING.STRATEGIES:
        names += [*cfg.MINING.DATASETS, cfg.MINING.CALIBRATION.DATASET]
    if "harvest" in cfg.STAGES:
        names.append(cfg.HARVEST.TEST)
    return [name for name in names if name]


def read_records(
    names: list[str], processes: int
) -> tuple[dict[str, list[dict]], dict[str, Faults], dict[str, DataError]]:
    """Read every dataset's sound records and faults, and the errors of those that cannot be read at all."""
    records, faults, unreadable = {}, {}, {}
    for name in names:
        found = Faults()
        try:
            records[name] = read(name, found, processes)
            faults[name] = found
        except DataError as error:
            unreadable[name] = error
    return records, faults, unreadable


def build_volume(cache: VolumeCache, record: dict) -> tuple[str, ...]:
    """Cache a sub-volume and return its warnings.

    Raises:
        DataError: it cannot be read, or is of another size than its record says.
    """
    cached = cache.open(record)
    size = cached.geometry.size
    if size != (record["width"], record["height"], record["num_slices"]):
        told = f"{record['width']} x {record['height']} x {record['num_slices']}"
        found = " x ".join(map(str, size))
        raise DataError(record["file_name"], f"{found} voxels, but the annotations are for {told}")
    return cached.warnings


def build_volumes(
    cache: VolumeCache, records: dict[str, list[dict]], processes: int
) -> dict[str, tuple[str, ...] | DataError]:
    """Cache the volumes of all records.

    Returns:
        the warnings, or the error, of each by :func:`_key`.

    Raises:
        WriteError: the disk is full.
    """
    jobs = {
        _key(record): partial(build_volume, cache, {**record, "lesions": []})
        for rows in records.values()
        for record in rows
    }
    results = {}
    begin = partial(import_readers, imported_readers())  # records may name sources of theirs
    for key, result in run_all(jobs, "preprocess volumes", processes, begin=begin):
        if isinstance(result, WriteError):
            raise result
        results[key] = result
    return results


def _key(record: dict) -> str:
    return f"{record['file_name']} {record['volume']}"


def prepare(names: list[str], cache: VolumeCache, processes: int = 1) -> int:
    """Read, check and cache the datasets ``names``, report, and return how many things were left out."""
    records, faults, unreadable = read_records(names, processes)
    results = build_volumes(cache, records, processes)
    for name, rows in records.items():
        for record in rows:
            result = results[_key(record)]
            if isinstance(result, DataError):
                faults[name].add(record["volume"], result)
            else:
                faults[name].warn(record["volume"], result)
        write_lists(name, faults[name])
    for name in names:
        if name in unreadable:
            print(f"{name}: not usable\n  {unreadable[name]}")
            continue
        ready = len({record["volume"] for record in records[name]} - faults[name].keys())
        warned = faults[name].warnings
        odd = f", {len(warned)} warned of" if warned else ""
        print(f"{name}: {ready} sub-volumes ready, {len(faults[name])} left out{odd}")
        if not ready and not faults[name]:
            print(f"  warning: {root_of(name)} holds no sub-volume of it")
        for entry, error in faults[name].items():
            print(f"  {entry}: {error}")
        for entry, texts in warned.items():
            print(*(f"  {entry}: warning: {text}" for text in texts), sep="\n")
    return len(unreadable) + sum(map(len, faults.values()))


def sweep(cache: VolumeCache) -> None:
    """Remove what nothing reads any more, and say what and how large."""
    total = 0
    for file in superseded(cache):
        print(f"  removed {file.size / 1e6:8.1f} MB  {file.path.name} ({file.reason})")
        file.path.unlink()
        total += file.size
    print(f"swept: {total / 1e6:.1f} MB freed")


def run(args: argparse.Namespace) -> int:
    """Prepare what the options name, and return the exit status.

    Raises:
        DataError: a dataset is not registered, or the config cannot be read.
        WriteError: the disk is full.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    names, cfg = setup(args)
    cache = build_cache(cfg)
    print(f"cache: {Path(cache.root).absolute()}")
    left_out = prepare(names, cache, args.workers)
    if args.sweep:
        sweep(cache)
    return 1 if left_out else 0
