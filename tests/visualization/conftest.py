"""Fixtures of the tests of pictures: scans with detections put in by hand."""

from helpers.handmade_scan import make_scan, report, scan  # noqa: F401
