"""``detections.csv``: a row per detection, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io

from .scan_report import Detection, ScanReport
from .writer import EXPORT_REGISTRY, Writer

VOXEL_COLUMNS = (
    "x1_pixel_edge",
    "y1_pixel_edge",
    "z1_first_slice",
    "x2_pixel_edge",
    "y2_pixel_edge",
    "z2_last_slice",
)
WORLD_COLUMNS = tuple(f"lps_{axis}_{end}_mm" for end in ("min", "max") for axis in "xyz")
SIZE_COLUMNS = ("diameter_x_mm", "diameter_y_mm", "diameter_z_mm")


@EXPORT_REGISTRY.register()
class CsvTable(Writer):
    """The axis order and the convention of every coordinate stand in the column names.

    Voxel boxes are in the volume frame, slices counted from 0 and the last one included; world boxes are in LPS
    mm. ``slices`` lists all slices, separated by spaces; ``fpr_score`` is empty where nothing gave one.
    """

    file_name = "detections.csv"
    purpose = "table for spreadsheets and scripts"

    def render(self, report: ScanReport) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        experts = [f"score_{name}" for name in report.experts]
        writer.writerow(
            ["detection", "score", "fpr_score", *experts, *VOXEL_COLUMNS, *WORLD_COLUMNS]
            + [*SIZE_COLUMNS, "key_slice", "num_slices", "slices"]
        )
        writer.writerows(self._row(detection, report.experts) for detection in report.detections)
        return text.getvalue().encode()

    @staticmethod
    def _row(detection: Detection, experts: tuple[str, ...]) -> list:
        scores = [detection.score, detection.fpr_score, *(detection.expert_scores.get(name) for name in experts)]
        box = detection.box
        return [
            detection.number,
            *("" if score is None else f"{score:.6f}" for score in scores),
            *(f"{box[i]:g}" if i in (2, 5) else f"{box[i]:.3f}" for i in range(6)),
            *(f"{value:.3f}" for value in (*detection.world_box, *detection.size_mm)),
            detection.key_slice,
            len(detection.slices),
            " ".join(map(str, detection.slices)),
        ]
