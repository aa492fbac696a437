"""Detection in scans, and its output files: ``lens-d2 predict``."""

from __future__ import annotations

import argparse
import csv
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from .. import __version__, model_zoo
from ..config import load_config
from ..data.scans import Scan, SeveralSeries, find_scans, public_names
from ..data.sources.source import open_source, stamp_of
from ..engine import allowed, checks, launch
from ..export import SegmentationFile, StructuredReport, Written, refuse_to_replace, remove_report, warnings_cell
from ..export.dicom_headers import readable
from ..io import cli
from ..io.artifacts import ResultStore, by_the_first, digest, digest_of_file, share_out
from ..io.config_files import merge_opts
from ..io.device import check_device, fall_back_to_cpu
from ..io.errors import DataError, WriteError
from ..io.files import LOCK, check_writable, only_run_in, write_errors, write_whole
from ..io.parallel import read_ahead
from ..io.report_format import TABLE_FILE
from ..io.zoo import local_path
from ..lesion_detector import LesionDetector, ReadScan
from .options import DEFAULT_MODEL

logger = logging.getLogger(__name__)

OUTCOMES = ".scans"  # folder below the output
NUMBERED_NAME = re.compile(r"scan_(\d+)")  # without --keep-ids
DONE, FAILED, PASSED_OVER = "done", "failed", "passed over"
# What --resume looks at, of the options that have an effect on a scan's outputs.
EFFECTIVE = ("series", "fill_gaps", "spacing", "score_threshold", "max_detections", "keep_ids")


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
    allowed.check_names(cfg, with_datasets=False)
    checks.check_input(cfg)
    if not cfg.MODEL.WEIGHTS and not args.allow_random_weights:
        raise DataError(args.config_file, "no weights: add MODEL.WEIGHTS model_final.pth at the end")
    check_device(cfg, args.num_gpus)
    return cfg


class OutcomeStore(ResultStore):
    """Outcomes of scans: {"status", "detections", "fault", "warnings", "files": {name: bytes}} for each.

    It depends on the scan's file or folder, its place below the input, the options, the config and the weights,
    and is outdated when one of them changes. It does not tell the scan's path, which may name a patient.
    """

    def __init__(self, output: Path, cfg: CfgNode, args: argparse.Namespace):
        weights = [digest_of_file(local_path(path)) for path in (cfg.MODEL.WEIGHTS, cfg.MODEL.FPR.WEIGHTS) if path]
        options = [getattr(args, name) for name in EFFECTIVE]
        super().__init__(output / OUTCOMES, digest([__version__, cfg.dump(), weights, options]))
        self.output, self.input = output, os.path.abspath(args.input)

    def name(self, thing: Scan) -> str:
        """Name of the scan."""
        return thing.name

    def header(self, thing: Scan) -> dict[str, str]:
        """Digest of what the outcome is of."""
        place = os.path.relpath(thing.record["file_name"], self.input)
        identity = [*self._stamps(thing.record), thing.record.get("series_uid"), place]
        return {self.digest_key: digest([self.made_from, *identity])}

    def numbered(self, scans: Sequence[Scan]) -> list[Scan]:
        """The scans by their numbers in earlier runs; others get the numbers that are free, in their order."""
        earlier = {}
        for path in self.root.glob(f"*{self.suffix}"):
            match = NUMBERED_NAME.fullmatch(path.name.removesuffix(self.suffix))
            with suppress(OSError, ValueError, RecursionError):  # a damaged one is of no scan
                if match:
                    earlier[self.load(path)[1].get(self.digest_key)] = int(match[1])
        kept = {scan.name: earlier.get(self.header(scan)[self.digest_key]) for scan in scans}
        free = (number for number in count(1) if number not in kept.values())
        return sorted((scan.numbered(kept[scan.name] or next(free)) for scan in scans), key=lambda s: s.number)

    def _stamps(self, record: dict) -> list[tuple[str, int, int]]:
        """Name, size and time of modification of the scan's files, without what is written below the output."""
        try:
            files = open_source(record).files()
        except (DataError, OSError):  # no scan, or one that cannot be read
            files = [Path(record["file_name"])]
        output = self.output.absolute()
        return [stamp_of(file) for file in files if output not in file.absolute().parents and os.path.exists(file)]

    def find_whole(self, scan: Scan) -> dict | None:
        """The outcome of a scan if it is done and all its outputs are there, else None."""
        outcome = self.find(scan)
        if outcome and outcome["status"] != DONE:
            return None
        sizes = {name: _size(self.output / scan.name / name) for name in outcome["files"]} if outcome else {}
        return outcome if outcome and sizes == outcome["files"] else None

    def clear(self, scans: Iterable[Scan], kept: Collection[str]) -> None:
        """Remove earlier outputs and outcomes, except those of kept scans.

        They may be of other scans, which had the same numbers.

        Args:
            scans: those that will be run.
            kept: names of scans.

        Raises:
            WriteError: a file cannot be removed.
        """
        earlier = {path.name.removesuffix(self.suffix) for path in self.root.glob(f"*{self.suffix}")}
        for name in (earlier | {scan.name for scan in scans}).difference(kept):
            remove_report(self.output / name)
            (self.root / f"{name}{self.suffix}").unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove the outputs of an earlier run over many scans, with its table.

        Raises:
            WriteError: a file cannot be removed.
        """
        if self.root.is_dir():
            self.clear((), ())
            with write_errors(self.output):
                (self.output / TABLE_FILE).unlink(missing_ok=True)
            with suppress(OSError):  # it holds something else
                self.root.rmdir()


def _size(path: Path) -> int:
    """Bytes of a file; -1 without it."""
    return path.stat().st_size if path.is_file() else -1


class Predictor:
    """Runs scans one after the other and writes what was found."""

    def __init__(self, cfg: CfgNode, args: argparse.Namespace):
        self.args = args
        self.detector = LesionDetector(cfg, shows_progress=True, allow_random_weights=args.allow_random_weights)
        model = Path(args.config_file).name if args.config_file else args.model or DEFAULT_MODEL
        self.detector.provenance = {"Model": model, **self.detector.provenance}

    def read(self, scan: Scan) -> ReadScan:
        """Read one scan.

        Raises:
            DataError: the scan cannot be read.
        """
        if scan.fault is not None:
            raise scan.fault
        return replace(self.detector.read(scan.record), warnings=scan.warnings)

    def run(self, scan: Scan, read: ReadScan, title: str, folder: Path) -> tuple[int, Written]:
        """Detect in one scan, write its files to ``folder``; returns the number of detections, and the files."""
        findings = self.detector(
            read,
            score_threshold=self.args.score_threshold,
            max_detections=self.args.max_detections,
            name=scan.name if self.args.keep_ids else title,
            keep_ids=self.args.keep_ids,
        )
        return len(findings), findings.save(folder)

    def run_each(self, scans: Iterable[tuple[str, Scan]], outcomes: OutcomeStore) -> Iterator[dict]:
        """Run scans with their titles into folders of their own, and give what became of each.

        The next scan is read meanwhile; an outcome is stored when all files of the scan are written.

        Raises:
            WriteError: a file cannot be written; of the next scan nothing could be written either.
        """
        for (title, scan), read in read_ahead(scans, lambda titled: self.read(titled[1])):
            yield self._try(title, scan, read, outcomes)

    def _try(self, title: str, scan: Scan, read: Callable[[], ReadScan], outcomes: OutcomeStore) -> dict:
        try:
            found, written = self.run(scan, read(), title, outcomes.output / scan.name)
            files = {file.name: _size(file) for file in written.files}
            outcome = _outcome(DONE, detections=found, warnings=list(written.warnings), files=files)
        except WriteError:
            raise
        except Exception as error:  # whatever is wrong with one scan, the others are run
            tell_unexpected(error, self.args.keep_ids)
            outcome = _outcome(FAILED, fault=fault_in(scan, error, self.args.keep_ids))
        outcomes.put(scan, outcome)
        return outcome


def tell_unexpected(error: Exception, keep_ids: bool) -> None:
    """Log where an error came from that is not the scan's fault; with identifiers, its message as well."""
    if isinstance(error, DataError):
        return
    trace = traceback.format_exception(error) if keep_ids else traceback.format_tb(error.__traceback__)
    logger.error("unexpected %s\n%s", type(error).__name__, "".join(trace).rstrip())


def _outcome(status: str, **parts) -> dict:
    return {"status": status, "detections": "", "fault": "", "warnings": [], "files": {}, **parts}


def run_one(predictor: Predictor, scan: Scan, outcomes: OutcomeStore) -> int:
    """Run the only scan there is, and return the exit code."""
    output = outcomes.output
    remove_report(output)  # it may be another scan's
    outcomes.remove_all()
    try:
        found, written = predictor.run(scan, predictor.read(scan), "Scan", output)
    except WriteError:
        raise
    except Exception as error:
        tell_unexpected(error, predictor.args.keep_ids)
        print(f"{predictor.args.input}: {fault_in(scan, error, predictor.args.keep_ids)}", file=sys.stderr)
        return cli.BAD_INPUT if isinstance(error, DataError) else 1
    print(f"{found} detections; look at {output / 'report.html'}")
    say_where_reports_go([file.name for file in written.files], predictor.args.keep_ids)
    for warning in written.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def run_all(predictor: Predictor, scans: list[Scan], outcomes: OutcomeStore) -> int:
    """Run scans, every rank a share of them, and go on past those that fail.

    The first rank tells the results of all ranks.

    Returns:
        the exit code, on the first rank; 0 on the others, which have none of their own.
    """
    keep_ids, output = predictor.args.keep_ids, outcomes.output
    titled = [(f"Scan {scan.number}", scan) for scan in scans if scan.is_scan]
    done = by_the_first(partial(_finished, titled, outcomes, predictor.args.resume))
    left = [(title, scan) for title, scan in titled if scan.name not in done]
    ran = share_out(left, partial(predictor.run_each, outcomes=outcomes), "scans")
    if not comm.is_main_process():
        return 0
    done |= {scan.name: outcome for (_, scan), outcome in zip(left, ran, strict=True)}
    for scan in scans:
        if not scan.is_scan:
            done[scan.name] = _outcome(PASSED_OVER, fault=fault_in(scan, scan.fault, keep_ids))
    in_order = {scan.name: done[scan.name] for scan in scans}
    rows = [
        [name, each["status"], each["detections"], each["fault"], warnings_cell(each["warnings"])]
        for name, each in in_order.items()
    ]
    write_table(output / TABLE_FILE, ["folder", "status", "detections", "fault", "warnings"], rows)
    failures = [f"{name}: {each['fault']}" for name, each in in_order.items() if each["status"] == FAILED]
    print(f"{len(titled) - len(failures)} of {len(titled)} scans done; look at {output}/*/report.html")
    say_where_reports_go({file for each in in_order.values() for file in each["files"]}, keep_ids)
    for name, each in in_order.items():
        for warning in each["warnings"]:
            print(f"warning: {name}: {warning}", file=sys.stderr)
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failures else 0


def _finished(titled: list[tuple[str, Scan]], outcomes: OutcomeStore, resume: bool) -> dict[str, dict]:
    """The outcomes of an earlier run that stay, by the names of scans; without ``resume``, none."""
    kept: dict[str, dict] = {}
    for _, scan in titled if resume else ():
        if outcome := outcomes.find_whole(scan):
            kept[scan.name] = outcome
    remove_report(outcomes.output)  # of a single scan
    outcomes.clear([scan for _, scan in titled], kept)
    if resume:
        logger.info("scans: %d of %d are done", len(kept), len(titled))
    return kept


def say_where_reports_go(written: Iterable[str], keep_ids: bool) -> None:
    """Tell users that DICOM outputs without identifiers, if any were written, are in studies of their own."""
    written = set(written)
    for name in (StructuredReport.file_name, SegmentationFile.file_name):
        if not keep_ids and name in written:
            print(
                f"{name} names no patient and is in a study of its own; --keep-ids puts it into that of the series"
            )


def fault_in(scan: Scan, error: Exception, keep_ids: bool) -> str:
    """Say in one line what is wrong with a scan, with the file at fault where it is one of the scan's many."""
    if not isinstance(error, DataError):
        return readable(f"{type(error).__name__}: {error}") if keep_ids else type(error).__name__
    shown = str if keep_ids else public_names(scan)
    fault, file = error.without_private(shown), Path(os.path.abspath(error.path))
    is_one_of_many = Path(scan.record["file_name"]) in file.parents
    return readable(f"{shown(file.name)}: {fault}" if is_one_of_many else fault)


def write_table(path: Path, header: list[str], rows: list[list]) -> None:
    """Write a table of comma-separated values."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_whole(path, text.getvalue().encode())


def find(args: argparse.Namespace) -> list[Scan] | None:
    """Find the scans of the input; None, after a line on each, if the user has to pick one.

    Raises:
        DataError: the input cannot be used.
    """
    try:
        return find_scans(
            args.input,
            spacing=args.spacing,
            series_uid=args.series,
            fill_gaps=args.fill_gaps,
            keep_ids=args.keep_ids,
            leave_out=args.output,
        )
    except SeveralSeries as error:
        print(f"{error} (--series UID):", *error.lines, sep="\n  ", file=sys.stderr)
        return None


def main(args: argparse.Namespace) -> int:
    """Run what the options ask for, and return the exit code; the body of a rank.

    Raises:
        DataError: the config, the weights or the input cannot be used.
        WriteError: an output cannot be written.
    """
    setup_logger(name="lens_d2", distributed_rank=comm.get_rank())
    cfg = read_config(args)
    fall_back_to_cpu(cfg)
    cfg.freeze()
    if Path(args.input).resolve() == args.output.resolve():
        raise DataError(args.output, "is both input and output: give another --output")
    if args.output.exists() and not args.output.is_dir():
        raise DataError(args.output, "is a file: give a folder as --output")
    if comm.is_main_process():
        check_writable(args.output)
    with _alone_in(args.output) if comm.is_main_process() else nullcontext():
        return _predict(cfg, args)


@contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    """Keep a second run out of the output folder, which goes if nothing was written."""
    with only_run_in(output):
        try:
            yield
        finally:
            if os.listdir(output) == [LOCK]:
                (output / LOCK).unlink()
                output.rmdir()


def _predict(cfg: CfgNode, args: argparse.Namespace) -> int:
    """Find the scans and run them, in an output folder that no other run writes to."""
    scans = by_the_first(partial(find, args))
    if scans is None:
        return cli.BAD_INPUT
    wanted = [scan for scan in scans if scan.is_scan]
    is_one = len(wanted) == 1 and wanted[0].record["file_name"] == os.path.abspath(args.input)
    outcomes = OutcomeStore(args.output, cfg, args)
    if not is_one and args.resume and not args.keep_ids:
        scans = by_the_first(partial(outcomes.numbered, scans))
        wanted = [scan for scan in scans if scan.is_scan]
    for scan in wanted:
        refuse_to_replace(scan.record["file_name"], args.output if is_one else args.output / scan.name)
    if is_one:
        status = run_one(Predictor(cfg, args), wanted[0], outcomes) if comm.is_main_process() else 0
    else:
        status = run_all(Predictor(cfg, args), scans, outcomes)
    comm.synchronize()  # a rank that ends with another status than 0 takes the others along
    return status


def run(args: argparse.Namespace) -> int:
    """Start the ranks that the options ask for, and return the exit code."""
    try:
        launch.run(main, args, check=read_config)
    except SystemExit as end:  # a rank has reported a fault, or a request to stop
        if not isinstance(end.code, int):
            raise
        return end.code
    return 0
