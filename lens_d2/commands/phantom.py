"""Writing of a synthetic cohort: ``lens-d2 phantom``."""

from __future__ import annotations

import argparse
import sys
import time

from ..io.errors import DataError
from ..phantom.cohort import write_cohort
from ..phantom.plan import DIFFICULTIES, SIZES, CohortPlan


def plan_of(args: argparse.Namespace) -> CohortPlan:
    """Make the plan that the options ask for.

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


def run(args: argparse.Namespace) -> None:
    """Write the cohort and print its counts.

    Raises:
        DataError: the options make no sense, or a cohort is there already.
    """
    began = time.perf_counter()
    # Nothing has run in this process yet, so that forked workers are safe, and they need no imports.
    start = "fork" if sys.platform == "linux" else "spawn"
    manifest = write_cohort(plan_of(args), args.output, args.workers, args.overwrite, start)
    for name, row in manifest["counts"].items():
        print(
            f"{name:18s} {row['patients']:4d} patients {row['volumes']:4d} sub-volumes {row['slices']:6d} slices "
            f"{row['lesions']:5d} lesions {row['annotated']:5d} annotated"
        )
    print(f"{args.output}: written in {time.perf_counter() - began:.0f} s")
