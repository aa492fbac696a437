#!/usr/bin/env python
"""Scores detections under a published protocol: python tools/evaluate.py --help, and docs/evaluation.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lens_d2.evaluation.bootstrap import intervals
from lens_d2.evaluation.coco import coco_json
from lens_d2.evaluation.jobs import add_arguments, open_job, run
from lens_d2.evaluation.plots import plot_froc, plot_precision_recall
from lens_d2.evaluation.readers import read_marks_as_detections
from lens_d2.evaluation.report import froc_table, summary_table, write_json
from lens_d2.evaluation.strata import read_groups, stratify


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--predictions", required=True, metavar="FILE", help="JSON, pickle or CSV")
    parser.add_argument("--output-dir", required=True, metavar="DIR", type=Path)
    parser.add_argument("--attributes", metavar="CSV", help="lesions' diameter_mm, type, organ, thickness_mm")
    parser.add_argument("--annotations", metavar="FILE", help="p3d: marks whose recall at precision 100%% is told")
    parser.add_argument("--coco", action="store_true", help="also write truth and predictions as COCO JSON")
    args = parser.parse_args(argv)
    if args.coco and args.protocol == "luna16":
        parser.error("--coco needs boxes; the protocol luna16 has points")
    return parser, args


def evaluate(parser, args) -> None:
    job = open_job(parser, args)
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
    plot_froc(args.output_dir / "froc.png", {Path(args.predictions).stem: curve}, unit, title)
    if evaluation.match.recall is not None:
        recall_given = metrics.get("annotation_recall")
        match = evaluation.match
        plot_precision_recall(
            args.output_dir / "precision_recall.png", match.precision, match.recall, metrics["ap"], recall_given
        )
    if args.coco:
        coco, results = coco_json(job.truth, detections, job.frame)
        write_json(args.output_dir / "coco_truth.json", coco, indent=None)
        write_json(args.output_dir / "coco_predictions.json", results, indent=None)
    write_json(args.output_dir / "metrics.json", metrics)
    print(summary_table(metrics), end="\n\n")
    rows = {args.protocol: metrics}
    for key, strata in metrics.get("strata", {}).items():
        rows |= {f"{key} {name} ({s['num_lesions']})": {"fps": metrics["fps"], **s} for name, s in strata.items()}
    print(froc_table(rows))


def main(argv=None) -> int:
    parser, args = parse_args(argv)
    return run(lambda: evaluate(parser, args))


if __name__ == "__main__":
    sys.exit(main())
