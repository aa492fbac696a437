"""Files about a scan's detections that people open: CSV, JSON, Slicer markups, label map, DICOM SR and SEG, HTML.

Each format is a module with one class in :data:`EXPORT_REGISTRY`; :func:`write_report` writes all that apply.
"""

from ..structures.detections import Detection
from .csv_table import CsvTable, warnings_cell
from .html_report import HtmlReport
from .json_file import JsonFile
from .label_map import LabelMap
from .scan_report import NOT_A_MEDICAL_DEVICE, ScanReport, make_report
from .segmentation import SegmentationFile
from .slicer_markups import SlicerMarkups
from .structured_report import StructuredReport
from .writer import EXPORT_REGISTRY, Writer, Written, refuse_to_replace, remove_report, write_report

__all__ = [
    "EXPORT_REGISTRY",
    "NOT_A_MEDICAL_DEVICE",
    "CsvTable",
    "Detection",
    "HtmlReport",
    "JsonFile",
    "LabelMap",
    "ScanReport",
    "SegmentationFile",
    "SlicerMarkups",
    "StructuredReport",
    "Writer",
    "Written",
    "make_report",
    "refuse_to_replace",
    "remove_report",
    "warnings_cell",
    "write_report",
]
