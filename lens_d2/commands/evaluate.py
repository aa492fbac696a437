"""Evaluation of detections under a published protocol: ``lens-d2 evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..evaluation.bootstrap import intervals
from ..evaluation.coco import coco_json
from ..evaluation.jobs import open_job
from ..evaluation.plots import plot_froc, plot_precision_recall
from ..evaluation.readers import read_marks_as_detections
from ..evaluation.readers.foreign import MILLIMETRES
from ..evaluation.report import froc_table, summary_table, write_json
from ..evaluation.strata import read_groups, stratify
from ..io import cli
from ..io.errors import DataError


@cli.warnings_on_stderr()
def run(args: argparse.Namespace) -> None:
    """Write metrics and plots, and print the tables.

    Raises:
        DataError: options contradict each other, or a file is unsound.
    """
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

    curves = {Path(args.predictions).stem: evaluation.froc()}
    plot_froc(args.output / "froc.png", curves, job.protocol.unit, f"FROC, protocol {args.protocol}")
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
