"""The metric study of Lesion-Harvester (Section IV-B): which cheaper metric agrees with 3D IoU at 0.3?

    python -m experiments metrics --boxes-3d 3D-Box.pkl --marks Revised-Test1071.pkl \\
        --key-marks RECIST-Box-Test.pkl --predictions a.json b.json c.json --output DIR

The study is made on the sub-volumes of ``--boxes-3d``; the predictions are in the protocol p3d's layout. Without
``--marks``, a 3D box's middle slice stands for its mark. Writes ``metrics.json``, ``concordance.png`` (as Fig. 7)
and ``iou_3d.png`` (as Fig. 11).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tabulate import tabulate

from lens_d2.evaluation.plots import plot_concordance, plot_violin
from lens_d2.evaluation.readers import read_lesion_boxes, read_marks, read_tracklets
from lens_d2.evaluation.report import write_json
from lens_d2.evaluation.sets import BoxTruth
from lens_d2.evaluation.study import FPS, METRICS, REFERENCE, StudyTruth, best_iou, concordance, quartiles, stack
from lens_d2.io.errors import DataError
from lens_d2.io.formats import HARVESTER

from .runs import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--boxes-3d", required=True, metavar="FILE", help="3D boxes, as 3D-Box.pkl")
    parser.add_argument("--marks", metavar="FILE", help="a mark on every lesion, as Revised-Test1071.pkl")
    parser.add_argument(
        "--key-marks", required=True, metavar="FILE", help="the original marks, RECIST-Box-Test.pkl"
    )
    parser.add_argument("--predictions", required=True, nargs="+", metavar="FILE")
    parser.add_argument("--names", nargs="+", help="of the detectors, in the order of the files")
    add_output_argument(parser, "output/metrics")


def _distinct_names(files: list[str]) -> list[str]:
    """The files' stems; with their folders' names where two stems are the same."""
    stems = [Path(file).stem for file in files]
    return stems if len(set(stems)) == len(stems) else [f"{Path(f).parent.name}/{Path(f).stem}" for f in files]


def read_truth(args) -> StudyTruth:
    boxes = read_lesion_boxes(args.boxes_3d, frame=HARVESTER)
    if args.marks:
        marks = within(args.marks, read_marks(args.marks), boxes.volumes)
    else:
        flat = boxes.boxes.copy()
        flat[:, 2] = flat[:, 5] = np.round((flat[:, 2] + flat[:, 5]) / 2)
        marks = BoxTruth(boxes.volumes, boxes.volume, flat)
    return StudyTruth(boxes, marks, within(args.key_marks, read_marks(args.key_marks), boxes.volumes))


def within(path, marks: BoxTruth, volumes: list[str]) -> BoxTruth:
    """The marks in the given sub-volumes, numbered as these are."""
    number = {name: v for v, name in enumerate(volumes)}
    volume = np.array([number.get(name, -1) for name in marks.volumes])[marks.volume]
    rows = np.flatnonzero(volume >= 0)
    if not len(rows):
        raise DataError(path, "marks no lesion in the sub-volumes that have 3D boxes")
    rows = rows[np.argsort(volume[rows], kind="stable")]
    return BoxTruth(volumes, volume[rows], marks.boxes[rows])


def run(args: argparse.Namespace) -> None:
    """Run the experiment."""
    names = args.names or _distinct_names(args.predictions)
    if len(names) != len(args.predictions) or len(set(names)) < len(names):
        raise DataError("--names", f"{' '.join(names)}; give each prediction file a name of its own")
    truth = read_truth(args)
    recalls, fits = {}, {}
    for name, path in zip(names, args.predictions, strict=True):
        tracklets = read_tracklets(path, truth.boxes3d, Path(args.boxes_3d).name, foreign=True)
        recalls[name] = {metric: of(truth, tracklets) for metric, of in METRICS.items()}
        fits[name] = best_iou(truth.boxes3d, stack(tracklets))
    correlations = concordance(recalls)
    panels = {
        metric: {
            "pearson": value,
            "points": {name: (of[REFERENCE], of[metric]) for name, of in recalls.items()},
        }
        for metric, value in correlations.items()
    }
    plot_concordance(args.output / "concordance.png", panels, f"{REFERENCE} of 0.3")
    title = "3D IoU of stacked boxes with the lesions that they meet"
    plot_violin(args.output / "iou_3d.png", fits, "3D IoU", title)
    metrics = {
        "fps": list(FPS),
        "pearson": correlations,
        "recalls": recalls,
        "iou_3d": {name: quartiles(values) for name, values in fits.items()},
        "num_volumes": len(truth.boxes3d.volumes),
        "num_lesions": len(truth.boxes3d),
        "num_marks": len(truth.marks),
        "num_key_marks": len(truth.key_marks),
    }
    write_json(args.output / "metrics.json", metrics)
    rows = [(metric, "undefined" if value is None else f"{value:.4f}") for metric, value in correlations.items()]
    print(tabulate(rows, ["metric", f"Pearson with {REFERENCE}"], disable_numparse=True))
