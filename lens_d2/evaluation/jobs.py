"""From the options of a command line to a protocol, its truth and its detections; shared by commands."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..io.errors import DataError
from ..io.formats import HARVESTER, LENS, FileFrame
from .protocols import PROTOCOLS, Evaluation, Protocol
from .readers import (
    BoxReader,
    ForeignBoxes,
    find_reader,
    read_box_detections,
    read_candidates,
    read_lesion_boxes,
    read_marks,
    read_nodules,
    read_tracklets,
    scan_axes,
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


def open_job(args: argparse.Namespace) -> Job:
    """Read the truth and build the protocol.

    Args:
        args: options of a command that names a protocol.

    Raises:
        DataError: an option belongs to another protocol or is missing, or the truth is unsound.
    """
    given = {key for keys in OPTIONS.values() for key in keys if getattr(args, key, None) is not None}
    foreign = sorted(given - set(OPTIONS[args.protocol]))
    if foreign:
        raise DataError(f"--{foreign[0].replace('_', '-')}", f"no option of the protocol {args.protocol}")
    fps = tuple(sorted(set(args.fps))) if args.fps else None
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
        if (found := _foreign(path, args, given is not None)) is not None:
            return to_box_detections(found, truth, name, frame)
        if frame is MILLIMETRES:
            raise DataError(path, "is in voxels, and the truth in mm: name the folder of the scans by --scans")
        return read_box_detections(path, truth, name, args.split)

    return Job(protocol, truth, read, frame)


def _p3d_job(protocol: Protocol, args: argparse.Namespace) -> Job:
    name, given = Path(args.ground_truth).name, _foreign_truth(args)
    truth = read_marks(args.ground_truth, args.split) if given is None else to_mark_truth(given, HARVESTER)

    def read(path):
        found = _foreign(path, args, given is not None)
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
        found = _foreign(path, args, is_foreign_truth=False)
        if found is None:
            return read_candidates(path, nodules, name)
        return to_candidates(found, nodules.volumes, name)

    return Job(protocol, nodules, read)


_JOBS = {"lens3d": _lens3d_job, "p3d": _p3d_job, "luna16": _luna16_job}


def _foreign_truth(args: argparse.Namespace) -> ForeignBoxes | None:
    """Truth in another program's format; None if it is in the protocol's own layout."""
    return _read_foreign(find_reader(args.ground_truth, args.truth_format), args.ground_truth, None, args)


def _foreign(path, args: argparse.Namespace, is_foreign_truth: bool) -> ForeignBoxes | None:
    """Predictions in another program's format; None if they are in the protocol's own layout."""
    images = args.images or (args.ground_truth if is_foreign_truth else None)
    return _read_foreign(find_reader(path, args.format), path, images, args)


def _read_foreign(reader: BoxReader | None, path, images, args: argparse.Namespace) -> ForeignBoxes | None:
    if reader is None:
        return None
    boxes = reader.read_all(path, args.split, images)
    if not args.scans:
        return boxes
    return boxes.locate(partial(scan_geometry, args.scans), partial(scan_axes, args.scans))
