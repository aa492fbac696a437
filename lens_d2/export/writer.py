"""Writers of reports: their base class, their registry, and the function that runs them all."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from detectron2.utils.registry import Registry

from ..io.errors import DataError, WriteError
from ..io.files import write_whole
from ..io.report_format import REPORT_FILE, is_report
from .scan_report import ScanReport

logger = logging.getLogger(__name__)

EXPORT_REGISTRY = Registry("EXPORT")
EXPORT_REGISTRY.__doc__ = "Subclasses of Writer. Each writes one file about a scan."


class Writer:
    """One file format for the detections of a scan.

    Attributes:
        file_name: of the file that it writes.
        purpose: of that file, in a few words.
        required: whether a scan counts as failed without it.
    """

    file_name: str
    purpose: str
    required: bool = False

    def applies(self, report: ScanReport) -> bool:
        """Whether the scan can have this file."""
        return True

    def render(self, report: ScanReport) -> bytes:
        """The content of the file."""
        raise NotImplementedError


class Written(NamedTuple):
    """Outcome of writing a report.

    Attributes:
        files: those written.
        warnings: of the report, and a line for every format that could not be written.
    """

    files: Sequence[Path]
    warnings: Sequence[str]


def write_report(report: ScanReport, folder: str | PathLike) -> Written:
    """Write a scan's detections in every format that applies.

    Each file appears under its name only when it is complete. Optional formats come first: if one cannot be
    written, whatever the reason, the required ones say so. If a required one cannot be, no file is left; those of
    an earlier run stay only if none has been written.

    Args:
        report: of the scan.
        folder: is made if it does not exist.

    Raises:
        DataError: a file would replace the scan.
        Exception: whatever keeps a required format from being written.
    """
    writers = sorted((kind() for _, kind in EXPORT_REGISTRY), key=lambda each: each.required)
    everything = report_files(folder)
    refuse_to_replace(report.source, folder)
    files: list[Path] = []
    try:
        for writer in writers:
            try:
                if writer.applies(report):
                    files.append(write_whole(Path(folder) / writer.file_name, writer.render(report)))
            except Exception as error:
                if writer.required:
                    raise
                report = replace(report, warnings=(*report.warnings, _fault(writer, error, report.keep_ids)))
    except BaseException:
        _remove(everything if files else ())
        raise
    return Written(files, [*report.warnings, *_remove(everything - set(files))])


def report_files(folder: str | PathLike) -> set[Path]:
    """The files that :func:`write_report` may write to a folder, whether or not they are there."""
    return {Path(folder) / kind.file_name for _, kind in EXPORT_REGISTRY}


def refuse_to_replace(source: str | PathLike | None, folder: str | PathLike) -> None:
    """Refuse a folder in which a report would replace the file that its scan is read from.

    Args:
        source: the file; None for a scan without one.
        folder: of the report.

    Raises:
        DataError: names the folder, and not the scan, whose path may name a patient.
    """
    own = [path.name for path in report_files(folder) if source is not None and _is_same(path, Path(source))]
    if own:
        raise DataError(folder, f"the scan itself is {own[0]} there, and would be replaced: give another folder")


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is absent or cannot be looked at
        return False


def remove_report(folder: str | PathLike) -> None:
    """Remove what :func:`write_report` has written to a folder, and the folder if that was all.

    A folder without a report keeps its files, whatever they are called.

    Raises:
        WriteError: a file cannot be removed.
    """
    for line in _remove(report_files(folder) if is_report(Path(folder) / REPORT_FILE) else ()):
        raise WriteError(folder, line)
    with suppress(OSError):  # it is absent, or holds something else
        os.rmdir(folder)


def _fault(writer: Writer, error: Exception, keep_ids: bool) -> str:
    """A line on an optional format that failed.

    Of an unexpected error, the log says where, and what was wrong if identifiers are kept.
    """
    if isinstance(error, WriteError):
        return f"{writer.file_name} ({writer.purpose}) {error.fault}"
    kind = type(error).__name__
    trace = traceback.format_exception(error) if keep_ids else [*traceback.format_tb(error.__traceback__), kind]
    logger.error("%s cannot be written\n%s", writer.file_name, "".join(trace).rstrip())
    return f"{writer.file_name} ({writer.purpose}) could not be written: {kind}"


def _remove(paths: Iterable[Path]) -> list[str]:
    """Remove files of an earlier run, and return a line on each that stays."""
    staying = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            staying.append(f"{path.name} is of an earlier run and cannot be removed")
    return staying
