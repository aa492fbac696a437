"""The files by which outputs are known: ``detections.json`` of a scan, ``scans.csv`` of many."""

from __future__ import annotations

import re
from os import PathLike

REPORT_FILE = "detections.json"
TABLE_FILE = "scans.csv"  # beside the folders of the scans
REPORT_FORMAT = "lens_d2 detections"  # its "format", near the beginning of the file
_HEAD = 4096  # bytes in which that is looked for
_MARK = re.compile(rb'"format":\s*"' + REPORT_FORMAT.encode() + rb'"')


def is_report(file: str | PathLike) -> bool:
    """Whether a file is a report of detections; False if it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return _MARK.search(stream.read(_HEAD)) is not None
    except OSError:
        return False
