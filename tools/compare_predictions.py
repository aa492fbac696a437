#!/usr/bin/env python
"""Compares two detectors on the same truth: the difference of their average sensitivities, its 95% interval and
p-value, from a bootstrap that draws the same volumes for both.

    python tools/compare_predictions.py --protocol lens3d --ground-truth FILE --predictions A B --output DIR

Writes ``comparison.json`` and ``froc.png`` with both curves.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from lens_d2.evaluation.bootstrap import intervals, paired_comparison
from lens_d2.evaluation.jobs import add_arguments, open_job, run
from lens_d2.evaluation.plots import plot_froc
from lens_d2.evaluation.report import froc_table, write_json
from lens_d2.io.errors import DataError


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--predictions", required=True, nargs=2, metavar=("A", "B"))
    return parser.parse_args(args)


def compare(args: argparse.Namespace) -> None:
    """Writes the comparison and both curves, and prints the tables."""
    if not args.bootstrap:
        raise DataError("--bootstrap", "0; a comparison needs at least 1")
    job = open_job(args)
    events, rows, curves = [], {}, {}
    for letter, path in zip("AB", args.predictions, strict=True):
        evaluation = job.evaluate(path)[1]
        events.append(evaluation.match.events)
        metrics = evaluation.metrics | intervals(events[-1], job.protocol, args.bootstrap, args.seed)
        name = f"{letter}: {Path(path).stem}"
        rows[name] = metrics
        curves[name] = {key: metrics[key] for key in ("fps", "sensitivity")}
        curves[name] |= {"curve": evaluation.curve, "average": metrics["average_sensitivity"]}
        curves[name]["ci"] = metrics["sensitivity_ci"]
    comparison = paired_comparison(*events, job.protocol, args.bootstrap, args.seed)
    unit = "scan" if args.protocol == "luna16" else "sub-volume"
    plot_froc(args.output / "froc.png", curves, unit, f"FROC, protocol {args.protocol}")
    content = {"protocol": args.protocol, "predictions": args.predictions, **comparison, "metrics": rows}
    write_json(args.output / "comparison.json", content)
    print(froc_table(rows), end="\n\n")
    low, high = comparison["difference_ci"]
    print(f"B - A: {comparison['difference']:+.4f}, 95% interval {low:+.4f} to {high:+.4f},", end=" ")
    print(f"p = {comparison['p_value']:.3f}")


def main(args: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    return run(partial(compare, parse_args(args)))


if __name__ == "__main__":
    sys.exit(main())
