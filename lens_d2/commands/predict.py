"""Detection in scans, and all files that tell of it: ``lens-d2 predict``."""

from __future__ import annotations

import argparse
import csv
import io
import logging
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

from .. import model_zoo
from ..config import load_config
from ..data.scans import Scan, SeveralSeries, find_scans, without_names
from ..engine import checks
from ..export import SegmentationFile, StructuredReport, Written, warnings_cell
from ..io import cli
from ..io.config_files import merge_opts
from ..io.errors import DataError, WriteError
from ..io.files import write_whole
from ..io.progress import progress
from ..lesion_detector import LesionDetector

logger = logging.getLogger(__name__)


DEFAULT_MODEL = "phantom/lens_multi"


def read_config(args: argparse.Namespace) -> CfgNode:
    """Read the config of a run.

    Raises:
        DataError: it cannot be read, has unknown keys, or names no weights where these are needed.
    """
    if args.config_file:
        cfg = load_config(args.config_file, args.opts)
    else:
        cfg = model_zoo.get_config(args.model or DEFAULT_MODEL, trained=True)
        merge_opts(cfg, args.opts)
    checks.check_names(cfg)
    if not cfg.MODEL.WEIGHTS and not args.allow_random_weights:
        raise DataError(args.config_file, "no weights: add MODEL.WEIGHTS model_final.pth at the end")
    checks.check_device(cfg)
    checks.fall_back_to_cpu(cfg)
    cfg.freeze()
    return cfg


class Predictor:
    """Runs scans one after the other and writes what was found."""

    def __init__(self, cfg: CfgNode, args: argparse.Namespace):
        self.args = args
        self.detector = LesionDetector(cfg, shows_progress=True, allow_random_weights=args.allow_random_weights)
        model = Path(args.config_file).name if args.config_file else args.model or DEFAULT_MODEL
        self.detector.provenance = {"Model": model, **self.detector.provenance}

    def run(self, scan: Scan, title: str, folder: Path) -> tuple[int, Written]:
        """Detect in one scan, write its files to ``folder``, and return how many detections they show, and them.

        Raises:
            DataError: the scan cannot be read.
        """
        if scan.fault is not None:
            raise scan.fault
        findings = self.detector(
            scan.record,
            score_threshold=self.args.score_threshold,
            max_detections=self.args.max_detections,
            name=scan.name if self.args.keep_ids else title,
            keep_ids=self.args.keep_ids,
        )
        return len(findings), findings.save(folder)


def run_one(predictor: Predictor, scan: Scan, output: Path) -> int:
    """Run the only scan there is, and return the exit code."""
    try:
        count, written = predictor.run(scan, "Scan", output)
    except WriteError:
        raise
    except DataError as error:
        print(f"{predictor.args.input}: {fault_in(scan, error, predictor.args.keep_ids)}", file=sys.stderr)
        return 2
    print(f"{count} detections; look at {output / 'report.html'}")
    say_where_reports_go([written], predictor.args.keep_ids)
    for warning in written.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def run_all(predictor: Predictor, scans: list[Scan], output: Path) -> int:
    """Run scans into folders of their own, go on past those that fail, and return the exit code."""
    rows, done, failures, keep_ids = [], {}, [], predictor.args.keep_ids
    for number, scan in enumerate(progress(scans, "scans", "scan"), 1):
        if not scan.is_scan:
            rows.append([scan.name, "passed over", "", fault_in(scan, scan.fault, keep_ids), ""])
            continue
        try:
            count, done[scan.name] = predictor.run(scan, f"Scan {number}", output / scan.name)
            rows.append([scan.name, "done", count, "", warnings_cell(done[scan.name].warnings)])
        except WriteError:  # of the next scan nothing could be written either
            raise
        except Exception as error:  # whatever is wrong with one scan, the others are run
            if not isinstance(error, DataError):
                trace = "".join(traceback.format_exception(error))
                logger.error("unexpected error\n%s", trace if keep_ids else without_names(trace, scan))
            failures.append(f"{scan.name}: {fault_in(scan, error, keep_ids)}")
            rows.append([scan.name, "failed", "", fault_in(scan, error, keep_ids), ""])
    write_table(output / "scans.csv", ["folder", "status", "detections", "fault", "warnings"], rows)
    wanted = sum(scan.is_scan for scan in scans)
    print(f"{wanted - len(failures)} of {wanted} scans done; look at {output}/*/report.html")
    say_where_reports_go(done.values(), keep_ids)
    for name, written in done.items():
        for warning in written.warnings:
            print(f"warning: {name}: {warning}", file=sys.stderr)
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failures else 0


def say_where_reports_go(results: Iterable[Written], keep_ids: bool) -> None:
    """Tell those who have DICOM outputs without identifiers that these stand apart."""
    written = {file.name for each in results for file in each.files}
    for name in (StructuredReport.file_name, SegmentationFile.file_name):
        if not keep_ids and name in written:
            print(
                f"{name} names no patient and is in a study of its own; --keep-ids puts it into that of the series"
            )


def fault_in(scan: Scan, error: Exception, keep_ids: bool) -> str:
    """Say in one line what is wrong with a scan, with the file at fault where it is one of the scan's many."""
    if not isinstance(error, DataError):
        text = " ".join(f"{type(error).__name__}: {error}".split())
    elif Path(scan.record["file_name"]) in Path(error.path).parents:
        text = f"{Path(error.path).name}: {error.fault}"
    else:
        text = error.fault
    return text if keep_ids else without_names(text, scan)


def write_table(path: Path, header: list[str], rows: list[list]) -> None:
    """Write a table of comma-separated values."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_whole(path, text.getvalue().encode())


def run(args: argparse.Namespace) -> int:
    """Run what the options ask for, and return the exit code.

    Raises:
        DataError: the config, the weights or the input cannot be used.
        WriteError: an output cannot be written.
    """
    setup_logger(name="lens_d2")
    source, output = Path(args.input), args.output
    cfg = read_config(args)
    if source.resolve() == output.resolve():
        raise DataError(output, "is both input and output: give another --output")
    try:
        scans = find_scans(
            source,
            spacing=args.spacing,
            series_uid=args.series,
            fill_gaps=args.fill_gaps,
            keep_ids=args.keep_ids,
            leave_out=output,
        )
    except SeveralSeries as error:
        print(f"{error} (--series UID):", *error.lines, sep="\n  ", file=sys.stderr)
        return cli.BAD_INPUT
    predictor = Predictor(cfg, args)
    wanted = [scan for scan in scans if scan.is_scan]
    alone = len(wanted) == 1 and wanted[0].record["file_name"] == os.path.abspath(source)
    return run_one(predictor, wanted[0], output) if alone else run_all(predictor, scans, output)
