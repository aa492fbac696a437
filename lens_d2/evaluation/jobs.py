"""From the options of a command line to a protocol, its truth and its detections; shared by the tools."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..io import cli
from ..io.errors import DataError
from .overlap import OVERLAPS
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
    """A protocol with its truth. ``read`` gives the detections of a prediction file."""

    protocol: Protocol
    truth: object
    read: Callable[[str], object]
    first_pixel: int = 0  # the number that the files give to the first pixel of a row

    def evaluate(self, path) -> tuple[object, Evaluation]:
        """Reads a prediction file and scores its detections."""
        detections = self.read(path)
        return detections, self.protocol.evaluate(self.truth, detections)


# What each protocol's options are, beside those that all have.
OPTIONS = {
    "lens3d": ("split", "metric", "threshold", "box_order"),
    "p3d": ("split", "threshold", "annotations"),
    "luna16": ("excluded", "seriesuids"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a protocol and its truth, and the folder of results."""
    parser.add_argument("--protocol", required=True, choices=list(OPTIONS))
    parser.add_argument("--ground-truth", required=True, metavar="FILE", help="pickle, JSON or CSV")
    parser.add_argument(
        "--output", "--output-dir", required=True, type=Path, metavar="DIR", help="folder for the results"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), help="where the file has these levels")
    parser.add_argument("--metric", choices=list(OVERLAPS), help="lens3d's overlap (default IOBB)")
    parser.add_argument("--threshold", type=_share, help="least overlap of a hit (lens3d 0.3, p3d 0.5)")
    parser.add_argument(
        "--box-order",
        choices=("xyzxyz", "xyxyzz"),
        help="lens3d: columns of the truth's boxes; xyxyzz is 3D-Box.pkl's, with z from 0 in the sub-volume",
    )
    parser.add_argument("--excluded", metavar="FILE", help="luna16: excluded findings")
    parser.add_argument("--seriesuids", metavar="FILE", help="luna16: the series of the evaluation")
    parser.add_argument("--fps", type=_rate, nargs="+", help="false positives per volume to read the curve at")
    parser.add_argument("--bootstrap", type=_count, default=1000, metavar="N", help="draws (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")


def open_job(args: argparse.Namespace) -> Job:
    """Reads the truth and builds the protocol.

    Args:
        args: options of :func:`add_arguments`.

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
        truth = read_lesion_boxes(args.ground_truth, args.split, args.box_order or "xyzxyz")
        return Job(protocol, truth, lambda path: read_box_detections(path, truth, name, args.split))
    if args.protocol == "p3d":
        truth = read_marks(args.ground_truth, args.split)
        return Job(protocol, truth, lambda path: read_tracklets(path, truth, name, args.split), first_pixel=1)
    if not args.seriesuids:
        raise DataError("--seriesuids", "not given: the protocol luna16 needs the list of series")
    if not args.excluded:
        logger.warning(
            "no --excluded: findings that the challenge ignores count as false positives, "
            "and sensitivities are lower than the official ones"
        )
    nodules = read_nodules(args.ground_truth, args.seriesuids, args.excluded)
    return Job(protocol, nodules, lambda path: read_candidates(path, nodules, Path(args.seriesuids).name))


def run(body: Callable[[], None]) -> int:
    """Runs a tool's body as :func:`lens_d2.io.cli.run` does; warnings go to the standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("lens_d2")
    logger.addHandler(handler)
    try:
        return cli.run(body)
    finally:
        logger.removeHandler(handler)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in (0, 1]")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value
