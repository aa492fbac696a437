"""From the options of a command line to a protocol, its truth and its detections; shared by the tools."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..io import cli
from ..io.errors import DataError
from ..io.formats import HARVESTER, LENS, FileFrame
from .overlap import OVERLAPS
from .protocols import PROTOCOLS, Evaluation, Protocol
from .readers import (
    BOX_READERS,
    ForeignBoxes,
    find_reader,
    read_box_detections,
    read_boxes,
    read_candidates,
    read_lesion_boxes,
    read_marks,
    read_nodules,
    read_tracklets,
    scan_geometry,
)
from .readers.foreign import (
    MILLIMETRES,
    to_box_detections,
    to_box_truth,
    to_candidates,
    to_mark_truth,
    to_tracklets,
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a protocol and its truth, and the folder of results."""
    parser.add_argument("--protocol", required=True, choices=list(OPTIONS))
    parser.add_argument("--ground-truth", required=True, metavar="FILE", help="pickle, JSON or CSV")
    parser.add_argument(
        "--output", "--output-dir", required=True, type=Path, metavar="DIR", help="folder for the results"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), help="part to take of a file that has these")
    parser.add_argument("--metric", choices=list(OVERLAPS), help="lens3d's overlap (default IOBB)")
    parser.add_argument("--threshold", type=_share, help="least overlap of a hit (lens3d 0.3, p3d 0.5)")
    parser.add_argument(
        "--box-order",
        choices=list(BOX_ORDERS),
        help="lens3d: columns of the truth's boxes; xyxyzz is 3D-Box.pkl's, with z from 0 in the sub-volume",
    )
    formats = [name for name, _ in BOX_READERS]
    parser.add_argument(
        "--format", choices=formats, help="of predictions of another program (default: by content)"
    )
    parser.add_argument("--truth-format", choices=formats, help="of the truth, likewise")
    parser.add_argument("--images", metavar="FILE", help="COCO's dataset, for results (default: the truth)")
    parser.add_argument("--scans", metavar="DIR", help="scans by volume, if boxes are in mm and the truth is not")
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
    return _JOBS[args.protocol](protocol, args)


def _lens3d_job(protocol: Protocol, args: argparse.Namespace) -> Job:
    frame, name = BOX_ORDERS[args.box_order or "xyzxyz"], Path(args.ground_truth).name
    if (given := _foreign_truth(args)) is None:
        truth = read_lesion_boxes(args.ground_truth, args.split, frame)
    else:
        frame = frame if given.knows("voxels") else MILLIMETRES
        truth = to_box_truth(given, frame)

    def read(path):
        if (found := _foreign(path, args)) is not None:
            return to_box_detections(found, truth, name, frame)
        if frame is MILLIMETRES:
            raise DataError(path, "is in voxels, and the truth in mm: name the folder of the scans by --scans")
        return read_box_detections(path, truth, name, args.split)

    return Job(protocol, truth, read, frame)


def _p3d_job(protocol: Protocol, args: argparse.Namespace) -> Job:
    name, given = Path(args.ground_truth).name, _foreign_truth(args)
    truth = read_marks(args.ground_truth, args.split) if given is None else to_mark_truth(given, HARVESTER)

    def read(path):
        found = _foreign(path, args)
        if found is None:
            return read_tracklets(path, truth, name, args.split)
        return to_tracklets(found, truth, name, HARVESTER)

    return Job(protocol, truth, read, HARVESTER)


def _luna16_job(protocol: Protocol, args: argparse.Namespace) -> Job:
    if not args.seriesuids:
        raise DataError("--seriesuids", "not given: the protocol luna16 needs the list of series")
    if not args.excluded:
        logger.warning(
            "no --excluded: findings that the challenge ignores count as false positives, "
            "and sensitivities are lower than the official ones"
        )
    nodules = read_nodules(args.ground_truth, args.seriesuids, args.excluded)
    name = Path(args.seriesuids).name

    def read(path):
        found = _foreign(path, args)
        if found is None:
            return read_candidates(path, nodules, name)
        return to_candidates(found, nodules.volumes, name)

    return Job(protocol, nodules, read)


_JOBS = {"lens3d": _lens3d_job, "p3d": _p3d_job, "luna16": _luna16_job}


def _foreign_truth(args: argparse.Namespace) -> ForeignBoxes | None:
    """Truth in another program's format; None if it is in the protocol's own layout."""
    if find_reader(args.ground_truth, args.truth_format) is None:
        return None
    return _located(read_boxes(args.ground_truth, args.truth_format, split=args.split), args)


def _foreign(path, args: argparse.Namespace) -> ForeignBoxes | None:
    """Predictions in another program's format; None if they are in the protocol's own layout."""
    if find_reader(path, args.format) is None:
        return None
    images = args.images
    if images is None and find_reader(args.ground_truth, args.truth_format) is not None:
        images = args.ground_truth
    return _located(read_boxes(path, args.format, split=args.split, images=images), args)


def _located(boxes: ForeignBoxes, args: argparse.Namespace) -> ForeignBoxes:
    return boxes.locate(partial(scan_geometry, args.scans)) if args.scans else boxes


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
