"""Makes the tables of both papers, on the synthetic cohort: runs, their records, pages with the paper's numbers.

    python -m experiments reproduce --table lens-1 --seeds 1 2 3 --output docs/results --jobs 2

A table is a file in ``experiments/tables``. Rows share runs, within a table and among tables. Every run leaves a
record in ``<output>/runs`` (of ``output/results`` without ``--output``); one whose record is there is not made
again, and one that was stopped goes on.
Cohorts, checkpoints and predictions are below ``--work``. If some runs failed, the exit status is 1. ``--render``
writes the pages again from the records and makes nothing. ``--size`` and ``--cohort-seed`` take another cohort
than the tables', and overrides of all runs go after ``--``, to try a table out:

    python -m experiments reproduce --table lens-1 --seeds 1 --size tiny --output /tmp/results --work /tmp/work \\
        -- SOLVER.MAX_ITER 20 SOLVER.STEPS "()"

docs/reproduce.md describes the files and the statistics.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from lens_d2.config import load_config
from lens_d2.io.errors import DataError
from lens_d2.io.files import check_writable
from lens_d2.phantom.plan import SIZES

from .. import runs
from .jobs import Workshop, terminated_as_interrupted
from .render import render
from .tables import Run, Table, read_table, table_names, words_of

PREPARED = "configs/phantom/lens_multi.yaml"  # its datasets have the sub-volumes of all of the cohort's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    names = ", ".join(table_names())
    parser.add_argument("--table", nargs="+", required=True, metavar="NAME", help=f"{names}; or YAML files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the trainings (default: 1)")
    runs.add_output_argument(parser, "output/results", "folder of records and pages")
    text = "folder of cohorts, checkpoints and predictions (default: %(default)s)"
    work = "output/reproduce"
    parser.add_argument("--work", type=lambda path: Path(path).resolve(), default=work, metavar="DIR", help=text)
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once (default: one, or one for each GPU)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that write a cohort (default: --jobs)")
    text = "stop the runs after N minutes; the same command goes on (default: never)"
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="N", help=text)
    parser.add_argument("--render", action="store_true", help="write the pages from the records, make no runs")
    parser.add_argument("--size", choices=SIZES, help="of the cohort, instead of the tables'")
    parser.add_argument("--cohort-seed", type=int, metavar="N", help="of the cohort, instead of the tables'")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of all runs' configs, after --")


def read_tables(args: argparse.Namespace) -> list[Table]:
    """The tables that the options name.

    Raises:
        DataError: see :func:`.tables.read_table`; or options that mean nothing, a config key without a value.
    """
    for option in ("jobs", "workers"):
        number = getattr(args, option)
        if number is not None and number < 1:
            raise DataError(f"--{option}", f"{number}; at least 1 is needed")
    if min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        given = " ".join(map(str, args.seeds))
        raise DataError("--seeds", f"{given}; numbers of 0 and more belong here, each once")
    if len(args.opts) % 2:
        raise DataError(args.opts[-1], "a config key without a value: overrides are KEY VALUE pairs")
    opts = dict(zip(args.opts[::2], args.opts[1::2], strict=True))
    cohort = {"size": args.size, "seed": args.cohort_seed}
    cohort = {key: value for key, value in cohort.items() if value is not None}
    return [read_table(name, cohort, opts) for name in args.table]


def check_configs(made: Iterable[Run]) -> None:
    """Read the configs of runs with their overrides, as each run does when its turn comes, in the same folder.

    Raises:
        DataError: a key or a value cannot be used.
    """
    with contextlib.chdir(runs.ROOT):
        for each in dict.fromkeys(made):
            given = {key: of.value.format(of.file) for key, of in each.given.items()}
            load_config(each.config, words_of({**each.opts, **given}))


def run(args: argparse.Namespace) -> int:
    """Make the runs and write the pages; 1 if a run failed, 130 if it was stopped."""
    tables = read_tables(args)
    tasks, failed, end = [], {}, time.monotonic() + 60 * args.minutes
    if not args.render:
        check_writable(args.output)
        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        slots = args.jobs or max(devices, 1)
        workshop = Workshop(args.work, args.output, slots, devices, say=lambda line: print(line, flush=True))
        tasks = workshop.wanted(tables, args.seeds)
        check_configs(task.run for task in tasks)
        try:
            with terminated_as_interrupted():
                for cohort in dict.fromkeys(task.cohort for task in tasks):
                    folder = workshop.data(cohort)
                    runs.write_cohort(folder, cohort.size, cohort.seed, PREPARED, args.workers or slots)
                failed = workshop.make(tasks, (end - time.monotonic()) / 60)
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", flush=True)
            return 130
    for table in tables:
        print(render(table, args.seeds, args.output))
    if failed:
        print(f"{len(failed)} of {len(tasks)} runs failed; the lines above say why")
    return int(bool(failed))
