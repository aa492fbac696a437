"""Does fusing the experts bring more than the best of them, and would calibrating their scores first?

    python -m experiments fusion --inference output/zoo/lens_multi/inference/phantom_deeplesion_1k_val

Takes the predictions of an evaluation. The experts' 3D detections are pooled and thinned by NMS, with their scores
as they are, as probabilities by Platt scaling, with log odds moved so that all experts have one false positive per
sub-volume at the same score, and with the log odds of all but the best expert lowered from there. Calibration and
evaluation use the same patients: what loses here loses.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import expit
from tabulate import tabulate

from lens_d2.evaluation.operating_points import find_operating_points
from lens_d2.evaluation.overlap import OVERLAPS
from lens_d2.evaluation.protocols.lens3d import lens3d
from lens_d2.evaluation.readers import read_box_detections, read_lesion_boxes
from lens_d2.evaluation.sets import BoxDetections
from lens_d2.io.errors import DataError
from lens_d2.structures.scores import log_odds

NMS_IOU = 0.5
LOWERED = (0.5, 1.0, 1.5)  # log odds

Score = Callable[[str, np.ndarray], np.ndarray]  # of an expert's name and its scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inference", type=Path, required=True, metavar="DIR", help="folder of an evaluation")


def thin(detections: BoxDetections) -> BoxDetections:
    """Keep, of detections that overlap by a 3D IoU above :data:`NMS_IOU`, the one with the highest score."""
    keep: list[int] = []
    order = np.argsort(-detections.scores, kind="stable")
    for rows in np.split(order[np.argsort(detections.volume[order], kind="stable")], _ends(detections)):
        boxes, free = detections.boxes[rows], np.ones(len(rows), bool)
        low, high = boxes[:, :3], boxes[:, 3:] + 1
        size = (high - low).prod(axis=1)
        for i, row in enumerate(rows):
            if free[i]:
                keep.append(row)
                sides = np.minimum(high[i], high) - np.maximum(low[i], low)
                inter = sides.clip(min=0).prod(axis=1)
                free &= OVERLAPS["IOU"](inter, size[i], size) <= NMS_IOU
    chosen = np.array(keep, dtype=int)
    return BoxDetections(detections.volume[chosen], detections.boxes[chosen], detections.scores[chosen])


def _ends(detections: BoxDetections) -> np.ndarray:
    counts = np.bincount(detections.volume)
    return np.cumsum(counts)[:-1]


def pool(experts: dict[str, BoxDetections], score: Score) -> BoxDetections:
    """Pool the experts' detections with new scores, and thin them."""
    return thin(
        BoxDetections(
            np.concatenate([own.volume for own in experts.values()]),
            np.concatenate([own.boxes for own in experts.values()]),
            np.concatenate([score(name, own.scores) for name, own in experts.items()]),
        )
    )


def run(args: argparse.Namespace) -> None:
    path = args.inference / "ground_truth.json"
    truth = read_lesion_boxes(path)
    found = {
        file.stem: read_box_detections(file, truth) for file in sorted(args.inference.glob("predictions*.json"))
    }
    experts = {name.removeprefix("predictions_"): own for name, own in found.items() if name != "predictions"}
    if len(experts) < 2:
        raise DataError(args.inference, "has not the predictions of several experts")
    points = {name: find_operating_points(truth, own) for name, own in experts.items()}

    def average(detections: BoxDetections) -> float:
        return lens3d().evaluate(truth, detections).metrics["average_sensitivity"]

    rows = [["fused on slices, as evaluated", average(found["predictions"])]]
    rows += [[f"{name} alone", average(own)] for name, own in experts.items()]
    best = max(rows[1:], key=lambda row: row[1])[0].removesuffix(" alone")

    def moved(name: str, scores: np.ndarray, lower: float) -> np.ndarray:
        shift = 0.0 if name == best else _at_one(best) - _at_one(name) - lower
        return expit(log_odds(scores) + shift)

    def _at_one(name: str) -> float:
        return float(log_odds(points[name].thresholds[1.0]))

    rows.append(["pooled, scores as they are", average(pool(experts, lambda name, scores: scores))])
    calibrated = pool(experts, lambda name, scores: points[name].probability(scores))
    rows.append(["pooled, scores as probabilities", average(calibrated)])
    rows.append(["pooled, aligned at one false positive", average(pool(experts, lambda n, s: moved(n, s, 0.0)))])
    for lower in LOWERED:
        detections = pool(experts, lambda name, scores, lower=lower: moved(name, scores, lower))
        rows.append([f"pooled, aligned, experts other than {best} lowered by {lower:g}", average(detections)])
    print(tabulate(rows, ["", "average sensitivity"], tablefmt="pipe", floatfmt=".3f"))
