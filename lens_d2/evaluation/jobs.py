"""From the options of a command line to a protocol, its truth and its detections; shared by commands."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..io.errors import DataError
from ..io.formats import HARVESTER, LENS, FileFrame
from .protocols import PROTOCOLS, Evaluation, Protocol
from .readers import (
    read_box_detections,
    read_candidates,
    read_lesion_boxes,
    read_marks,
    read_nodules,
    read_tracklets,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A protocol with its truth.

    Attributes:
        protocol: of the evaluation.
        truth: as the protocol takes it.
        read: gives the detections of a prediction file.
        frame: numbers of truth and predictions.
    """

    protocol: Protocol
    truth: object
    read: Callable[[str], object]
    frame: FileFrame = LENS

    def evaluate(self, path) -> tuple[object, Evaluation]:
        """The detections of a prediction file, and their evaluation."""
        detections = self.read(path)
        return detections, self.protocol.evaluate(self.truth, detections)


BOX_ORDERS = {"xyzxyz": LENS, "xyxyzz": HARVESTER}  # files of 3D boxes, by the order of their columns
# Options of each protocol beside those that all have.
OPTIONS = {
    "lens3d": ("split", "metric", "threshold", "box_order"),
    "p3d": ("split", "threshold", "annotations"),
    "luna16": ("excluded", "seriesuids"),
}


def open_job(args: argparse.Namespace) -> Job:
    """Reads the truth and builds the protocol.

    Args:
        args: options of a command that names a protocol.

    Raises:
        DataError: an option belongs to another protocol or is missing, or the truth is unsound.
    """
    given = {key for keys in OPTIONS.values() for key in keys if getattr(args, key, None) is not None}
    foreign = sorted(given - set(OPTIONS[args.protocol]))
    if foreign:
        raise DataError(f"--{foreign[0].replace('_', '-')}", f"no option of the protocol {args.protocol}")
    fps = tuple(sorted(args.fps)) if args.fps else None
    keys = {key: getattr(args, key) for key in ("metric", "threshold") if getattr(args, key) is not None}
    protocol = PROTOCOLS.get(args.protocol)(fps=fps, **keys)
    name = Path(args.ground_truth).name
    if args.protocol == "lens3d":
        frame = BOX_ORDERS[args.box_order or "xyzxyz"]
        truth = read_lesion_boxes(args.ground_truth, args.split, frame)
        return Job(protocol, truth, lambda path: read_box_detections(path, truth, name, args.split), frame)
    if args.protocol == "p3d":
        truth = read_marks(args.ground_truth, args.split)
        return Job(protocol, truth, lambda path: read_tracklets(path, truth, name, args.split), HARVESTER)
    if not args.seriesuids:
        raise DataError("--seriesuids", "not given: the protocol luna16 needs the list of series")
    if not args.excluded:
        logger.warning(
            "no --excluded: findings that the challenge ignores count as false positives, "
            "and sensitivities are lower than the official ones"
        )
    nodules = read_nodules(args.ground_truth, args.seriesuids, args.excluded)
    return Job(protocol, nodules, lambda path: read_candidates(path, nodules, Path(args.seriesuids).name))
