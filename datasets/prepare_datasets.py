#!/usr/bin/env python
"""Checks datasets and preprocesses their volumes into the cache, once, before training.

    python datasets/prepare_datasets.py deeplesion_train luna_train luna_val
    python datasets/prepare_datasets.py --config-file configs/lens_multi.yaml --processes 8
    python datasets/prepare_datasets.py                            (all datasets but the synthetic ones)

With --sweep, cache files that nothing reads any more are removed afterwards: those made with other INPUT keys than
the config's, and those whose source has changed or is gone. Other datasets' files of the same keys stay.

Every sound sub-volume is prepared. The others are listed with their faults, on the screen and under
``cache/left_out/`` in the datasets' folder, and are left out whenever the dataset is used; run this again when
they have been repaired. What is sound but odd (values that cannot be HU, a mask that does not meet its CT) is
used, and listed on the screen and under ``cache/warned_of/``. The exit status is 0 if nothing was left out, 1 if
something was, 2 for a wrong call.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from lens_d2.config import load_config
from lens_d2.data.cache import VolumeCache, build_cache, superseded
from lens_d2.data.datasets import register_all
from lens_d2.data.datasets.catalog import DATASETS, PHANTOM, Faults, read, write_lists
from lens_d2.io import cli
from lens_d2.io.errors import DataError, WriteError
from lens_d2.io.parallel import run_all


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [NAME ...]",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="datasets; else those of the config file; else all real ones"
    )
    parser.add_argument("--config-file", help="its DATASETS and INPUT keys count; else the project's defaults")
    parser.add_argument("--root", help="folder of the datasets; else DETECTRON2_DATASETS, else ./datasets")
    parser.add_argument("--cache-dir", help="folder of the volume cache; else INPUT.CACHE_DIR")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: %(default)s")
    parser.add_argument("--sweep", action="store_true", help="remove superseded cache files, and list them")
    parsed = parser.parse_args(args)
    known = sorted(name for own in DATASETS for name in (own, f"{PHANTOM}_{own}"))
    unknown = [name for name in parsed.names if name not in known]
    if unknown and not parsed.config_file:  # which may name readers of others
        parser.error(f"no dataset {', '.join(unknown)}; there are {', '.join(known)}")
    if not parsed.names and not parsed.config_file:
        parsed.names = list(DATASETS)
    return parsed


def setup(args: argparse.Namespace) -> tuple[list[str], CfgNode]:
    """The names of the datasets, and the config. DataError for a config file with others in it."""
    if args.root:
        os.environ["DETECTRON2_DATASETS"] = args.root
        register_all(args.root)
    cfg = load_config(args.config_file)
    if args.cache_dir:
        cfg.INPUT.CACHE_DIR = args.cache_dir
    names = dict.fromkeys(args.names or (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    unknown = [name for name in names if name not in DatasetCatalog]
    if unknown:
        raise DataError(args.config_file, f"no dataset {', '.join(unknown)}")
    return list(names), cfg


def read_records(
    names: list[str], processes: int
) -> tuple[dict[str, list[dict]], dict[str, Faults], dict[str, DataError]]:
    """Of every dataset its sound records and its faults, and the errors of those that cannot be read at all."""
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
    for key, result in run_all(jobs, "preprocess volumes", processes):
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
    """Prepares what the options name, and returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    names, cfg = setup(args)
    cache = build_cache(cfg)
    print(f"cache: {Path(cache.root).absolute()}")
    left_out = prepare(names, cache, args.processes)
    if args.sweep:
        sweep(cache)
    return 1 if left_out else 0


def main(args: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    return cli.run(partial(run, parse_args(args)))


if __name__ == "__main__":
    sys.exit(main())
