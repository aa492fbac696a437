"""Comparison of two detectors on the same truth: ``lens-d2 compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..evaluation.bootstrap import intervals, paired_comparison
from ..evaluation.jobs import open_job
from ..evaluation.plots import plot_froc
from ..evaluation.report import froc_table, write_json
from ..io import cli
from ..io.errors import DataError


@cli.warnings_on_stderr()
def run(args: argparse.Namespace) -> None:
    """Write the comparison and both curves, and print the tables.

    Raises:
        DataError: options contradict each other, or a file is unsound.
    """
    if not args.bootstrap:
        raise DataError("--bootstrap", "0; a comparison needs at least 1")
    job = open_job(args)
    events, rows, curves = [], {}, {}
    names = args.names or [Path(path).stem for path in args.predictions]
    for letter, own, path in zip("AB", names, args.predictions, strict=True):
        evaluation = job.evaluate(path)[1]
        events.append(evaluation.match.events)
        evaluation.metrics.update(intervals(events[-1], job.protocol, args.bootstrap, args.seed))
        name = f"{letter}: {own}"
        rows[name], curves[name] = evaluation.metrics, evaluation.froc()
    comparison = paired_comparison(*events, job.protocol, args.bootstrap, args.seed)
    plot_froc(args.output / "froc.png", curves, job.protocol.unit, f"FROC, protocol {args.protocol}")
    content = {"protocol": args.protocol, "predictions": args.predictions, **comparison, "metrics": rows}
    write_json(args.output / "comparison.json", content)
    print(froc_table(rows), end="\n\n")
    low, high = comparison["difference_ci"]
    print(f"B - A: {comparison['difference']:+.4f}, 95% interval {low:+.4f} to {high:+.4f},", end=" ")
    print(f"p = {comparison['p_value']:.3f}")
