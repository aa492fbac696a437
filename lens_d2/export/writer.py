"""What all writers have in common, and the registry of them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from detectron2.utils.registry import Registry

from ..data.files import write_whole
from .scan_report import ScanReport

EXPORT_REGISTRY = Registry("EXPORT")
EXPORT_REGISTRY.__doc__ = "Subclasses of Writer. Each writes one file about a scan."


class Writer:
    """One file format for the detections of a scan.

    Attributes:
        file_name: of what it writes. purpose: what that is for, in a few words.
    """

    file_name: str
    purpose: str

    def applies(self, report: ScanReport) -> bool:
        """Whether the scan can have this file."""
        return True

    def render(self, report: ScanReport) -> bytes:
        """The content of the file."""
        raise NotImplementedError


def write_report(report: ScanReport, folder: str | PathLike) -> list[Path]:
    """Write a scan's detections in every format that applies.

    Each file appears under its name only when it is complete.

    Args:
        report: of the scan. folder: is made where it does not exist.

    Returns:
        The files written.
    """
    written = []
    for _, kind in EXPORT_REGISTRY:
        writer = kind()
        if writer.applies(report):
            written.append(write_whole(Path(folder) / writer.file_name, writer.render(report)))
    return written
