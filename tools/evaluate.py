#!/usr/bin/env python
"""Scores detections under a published protocol, with confidence intervals and curves.

    python tools/evaluate.py --protocol lens3d --ground-truth FILE --predictions FILE --output DIR

docs/evaluation.md has the protocols, the layouts of files and all that is written.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from lens_d2.evaluation.bootstrap import intervals
from lens_d2.evaluation.coco import coco_json
from lens_d2.evaluation.jobs import add_arguments, open_job, run
from lens_d2.evaluation.plots import plot_froc, plot_precision_recall
from lens_d2.evaluation.readers import read_marks_as_detections
from lens_d2.evaluation.readers.foreign import MILLIMETRES
from lens_d2.evaluation.report import froc_table, summary_table, write_json
from lens_d2.evaluation.strata import read_groups, stratify
from lens_d2.io.errors import DataError


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--predictions", required=True, metavar="FILE", help="JSON, pickle or CSV, or a folder")
    parser.add_argument("--attributes", metavar="CSV", help="lesions' diameter_mm, type, organ, thickness_mm")
    parser.add_argument("--annotations", metavar="FILE", help="p3d: marks whose recall at precision 100%% is told")
    parser.add_argument("--coco", action="store_true", help="also write truth and predictions as COCO JSON")
    return parser.parse_args(args)


def evaluate(args: argparse.Namespace) -> None:
    """Writes metrics and plots, and prints the tables."""
    if args.coco and args.protocol == "luna16":
        raise DataError("--coco", "needs boxes, and the protocol luna16 has points")
    job = open_job(args)
    if args.coco and job.frame is MILLIMETRES:
        raise DataError("--coco", "needs voxels, and the truth is in mm: name the folder of the scans by --scans")
    groups = read_groups(args.attributes, job.truth) if args.attributes else {}
    given = read_marks_as_detections(args.annotations, job.truth) if args.annotations else None
    detections, evaluation = job.evaluate(args.predictions)
    metrics, events = evaluation.metrics, evaluation.match.events
    if given is not None:
        metrics["annotation_recall"] = job.protocol.recall_of(job.truth, given)
    if args.bootstrap:
        metrics |= intervals(events, job.protocol, args.bootstrap, args.seed)
    if groups:
        metrics["strata"] = stratify(events, groups, job.protocol)

    curve = {key: metrics[key] for key in ("fps", "sensitivity")}
    curve |= {"curve": evaluation.curve, "average": metrics["average_sensitivity"]}
    curve["ci"] = metrics.get("sensitivity_ci")
    unit = "scan" if args.protocol == "luna16" else "sub-volume"
    title = f"FROC, protocol {args.protocol}"
    plot_froc(args.output / "froc.png", {Path(args.predictions).stem: curve}, unit, title)
    if evaluation.match.recall is not None:
        recall_given = metrics.get("annotation_recall")
        match = evaluation.match
        plot_precision_recall(
            args.output / "precision_recall.png", match.precision, match.recall, metrics["ap"], recall_given
        )
    if args.coco:
        coco, results = coco_json(job.truth, detections, job.frame)
        write_json(args.output / "coco_truth.json", coco, indent=None)
        write_json(args.output / "coco_predictions.json", results, indent=None)
    write_json(args.output / "metrics.json", metrics)
    print(summary_table(metrics), end="\n\n")
    rows = {args.protocol: metrics}
    for key, strata in metrics.get("strata", {}).items():
        rows |= {f"{key} {name} ({s['num_lesions']})": {"fps": metrics["fps"], **s} for name, s in strata.items()}
    print(froc_table(rows))


def main(args: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    return run(partial(evaluate, parse_args(args)))


if __name__ == "__main__":
    sys.exit(main())
