"""``detections.csv``: a row per detection, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ..io.tables import VOXEL_COLUMNS, WORLD_COLUMNS
from ..structures.detections import Detection
from .scan_report import ScanReport
from .writer import EXPORT_REGISTRY, Writer

SIZE_COLUMNS = ("diameter_x_mm", "diameter_y_mm", "diameter_z_mm")
SLICE_COLUMNS = ("key_slice", "num_slices", "slices", "key_slice_instance_number", "key_slice_sop_instance_uid")
POINT_COLUMNS = ("probability", "operating_point_fp_per_volume")
NO_DETECTION = 0  # as in the label map


@EXPORT_REGISTRY.register()
class CsvTable(Writer):
    """Table of detections whose column names give the axis and the convention of every coordinate.

    Voxel boxes are in the volume frame, slices counted from 0 and the last one included; world boxes are in LPS
    mm. ``probability`` is the share of detections with such a score that were lesions on the validation patients,
    ``operating_point_fp_per_volume`` the fewest false positives per sub-volume at which the detection counts
    there; weights without operating points leave both empty. ``slices`` lists all slices, separated by spaces.
    Unknown scores are empty, as are ``key_slice_instance_number`` and ``key_slice_sop_instance_uid`` if the key
    slice is no DICOM image.

    ``warnings`` are those of the scan, the same in every row. A scan with warnings and without detections has one
    row for them, the detection 0: the table of a misread scan never looks like that of a clean one.

    ``finding`` is the number of the best detection of the same lesion, see :mod:`lens_d2.export.findings`.
    """

    file_name = "detections.csv"
    purpose = "table for spreadsheets and scripts"
    required = True

    def render(self, report: ScanReport) -> bytes:
        """CSV with a header, in UTF-8."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        experts = [f"score_{name}" for name in report.experts]
        columns = [
            "detection",
            "finding",
            "score",
            *POINT_COLUMNS,
            "fpr_score",
            *experts,
            *VOXEL_COLUMNS,
            *WORLD_COLUMNS,
        ]
        columns += [*SIZE_COLUMNS, *SLICE_COLUMNS, "warnings"]
        rows = [self._row(detection, report) for detection in report.detections]
        if report.warnings and not rows:
            rows = [[NO_DETECTION, *[""] * (len(columns) - 2), warnings_cell(report.warnings)]]
        writer.writerows([columns, *rows])
        return text.getvalue().encode()

    @staticmethod
    def _row(detection: Detection, report: ScanReport) -> list:
        experts = (detection.expert_scores.get(name) for name in report.experts)
        box, header = detection.box, report.header(detection.key_slice)
        return [
            detection.number,
            report.finding_of[detection.number],
            f"{detection.score:.6f}",
            "" if detection.probability is None else f"{detection.probability:.4f}",
            "" if detection.false_positive_rate is None else f"{detection.false_positive_rate:g}",
            *("" if score is None else f"{score:.6f}" for score in (detection.fpr_score, *experts)),
            *(f"{box[i]:g}" if i in (2, 5) else f"{box[i]:.3f}" for i in range(6)),
            *(f"{value:.3f}" for value in (*detection.world_box, *detection.size_mm)),
            detection.key_slice,
            len(detection.slices),
            " ".join(map(str, detection.slices)),
            header.number if header else None,
            header.sop_instance_uid if header else None,
            warnings_cell(report.warnings),
        ]


def warnings_cell(warnings: Sequence[str]) -> str:
    """Join warnings to one cell of a table."""
    return " | ".join(warnings)
