#!/usr/bin/env python
"""Writes the synthetic cohort: four datasets in their real file formats, with the full truth beside them."""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path

from lens_d2.io import cli
from lens_d2.io.errors import DataError
from lens_d2.phantom.cohort import write_cohort
from lens_d2.phantom.plan import DIFFICULTIES, SIZES, CohortPlan


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--output", type=Path, default=root / "phantom", help="folder to write")
    p.add_argument("--size", choices=list(SIZES), default="small", help="a ready size")
    for name in ("train", "val", "test"):
        p.add_argument(
            f"--{name}", type=int, help=f"{name} patients of the universal dataset, instead of the size's"
        )
    for name in ("luna", "lits", "nih-ln"):
        p.add_argument(f"--{name}", type=int, help="scans of this dataset, instead of the size's")
    p.add_argument("--matrix", type=int, help="pixels a side, a multiple of 16, instead of the size's")
    p.add_argument(
        "--difficulty", choices=list(DIFFICULTIES), default="medium", help="faintness of lesions, noise"
    )
    p.add_argument("--missing-rate", type=float, default=0.5, help="share of lesions without a mark")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--processes", "--workers", type=int, default=min(os.cpu_count() or 1, 8), metavar="N")
    p.add_argument("--overwrite", action="store_true", help="replace a cohort that is there")
    return p.parse_args(args)


def plan_of(args: argparse.Namespace) -> CohortPlan:
    """The plan that the options ask for.

    Raises:
        DataError: they make no sense.
    """
    names = ("train", "val", "test", "luna", "lits", "nih_ln", "matrix")
    try:
        return SIZES[args.size].with_changes(
            **{name: getattr(args, name) for name in names},
            hardness=DIFFICULTIES[args.difficulty],
            missing_rate=args.missing_rate,
            seed=args.seed,
        )
    except ValueError as error:
        raise DataError("cohort", str(error)) from None


def write(args: argparse.Namespace) -> None:
    """Writes the cohort and prints its counts."""
    began = time.perf_counter()
    # Nothing has run in this process yet, so that forked workers are safe, and they need no imports.
    start = "fork" if sys.platform == "linux" else "spawn"
    manifest = write_cohort(plan_of(args), args.output, args.processes, args.overwrite, start)
    for name, row in manifest["counts"].items():
        print(
            f"{name:18s} {row['patients']:4d} patients {row['volumes']:4d} sub-volumes {row['slices']:6d} slices "
            f"{row['lesions']:5d} lesions {row['annotated']:5d} annotated"
        )
    print(f"{args.output}: written in {time.perf_counter() - began:.0f} s")


def main(args: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    return cli.run(partial(write, parse_args(args)))


if __name__ == "__main__":
    sys.exit(main())
