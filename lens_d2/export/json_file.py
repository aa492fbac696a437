"""``detections.json``: all that is known of the detections, for programs."""

from __future__ import annotations

import json

from ..io.report_format import REPORT_FILE, REPORT_FORMAT
from ..structures.detections import Detection
from .scan_report import NOT_A_MEDICAL_DEVICE, ScanReport
from .writer import EXPORT_REGISTRY, Writer

FORMAT_VERSION = 1
CORNERS = ("x1", "y1", "z1", "x2", "y2", "z2")
CONVENTIONS = {
    "voxel_box": "Volume frame: the voxels of the file in the order x, y, z, with z along the body. x and y are "
    "pixel edges (pixel i spans i to i + 1); z1 and z2 are the first and the last slice, counted from 0, both "
    "included.",
    "world_box_lps_mm": "LPS millimetres (x to the patient's left, y to the back, z to the head), smallest and "
    "largest coordinate at the outer faces of the voxels.",
    "slice_boxes": "The 2D box on each slice, as voxel_box.",
    "diameters_mm": "Sides of the voxel box along its x, y and z axes.",
    "key_slice": "The slice with the highest score. Its InstanceNumber and SOPInstanceUID are null where it is no "
    "DICOM image.",
    "finding": "The number of the best detection of the same lesion: detections that overlap by half of the "
    "smaller box on common or neighbouring slices, their areas within a factor of four, are one finding.",
    "warnings": "What to know of the scan before its detections, or their absence, are trusted.",
    "score": "0 to 1; not a probability of disease.",
    "probability": "Share of detections with this score that were lesions on the validation patients of the "
    "weights; null for weights without calibration.",
    "operating_point_fp_per_volume": "Of the weights' operating points, the fewest false positives per sub-volume "
    "at which the detection counts; null below all of them.",
}


@EXPORT_REGISTRY.register()
class JsonFile(Writer):
    """JSON with a version of its format and the conventions of its numbers."""

    file_name = REPORT_FILE
    purpose = "everything known, for programs"
    required = True

    def render(self, report: ScanReport) -> bytes:
        """JSON in ASCII, indented."""
        content = {
            "format": REPORT_FORMAT,
            "format_version": FORMAT_VERSION,
            "notice": NOT_A_MEDICAL_DEVICE,
            "created": report.created.isoformat(timespec="seconds"),
            "conventions": CONVENTIONS,
            "provenance": dict(report.provenance),
            "scan": self._scan(report),
            "warnings": list(report.warnings),
            "score_threshold": report.score_threshold,
            "left_out": report.left_out,
            "operating_points": report.operating_points and report.operating_points.to_dict(),
            "experts": list(report.experts),
            "detections": [self._detection(each, report) for each in report.detections],
        }
        return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()

    @staticmethod
    def _scan(report: ScanReport) -> dict:
        geometry = report.geometry
        return {
            "name": report.name,
            **({"patient": dict(report.patient)} if report.patient else {}),
            "size_xyz": list(geometry.size),
            "spacing_xyz_mm": list(geometry.spacing),
            "voxel_center_index_xyz_to_lps_mm": [list(row) for row in geometry.affine],
            "file_axis_of_xyz": [int(axis) for axis in report.grid.axes],
            **({"slice_labels": list(report.slice_labels)} if report.slice_labels else {}),
        }

    @staticmethod
    def _detection(detection: Detection, report: ScanReport) -> dict:
        world, header = detection.world_box, report.header(detection.key_slice)
        return {
            "detection": detection.number,
            "finding": report.finding_of[detection.number],
            "score": detection.score,
            "probability": detection.probability,
            "operating_point_fp_per_volume": detection.false_positive_rate,
            "fpr_score": detection.fpr_score,
            "expert_scores": dict(detection.expert_scores),
            "voxel_box": dict(zip(CORNERS, detection.box, strict=True)),
            "world_box_lps_mm": {
                "min": dict(zip("xyz", world[:3], strict=True)),
                "max": dict(zip("xyz", world[3:], strict=True)),
            },
            "diameters_mm": dict(zip("xyz", detection.size_mm, strict=True)),
            "slices": detection.slices,
            "key_slice": detection.key_slice,
            "key_slice_instance_number": header.number if header else None,
            "key_slice_sop_instance_uid": header.sop_instance_uid if header else None,
            "slice_boxes": [
                {"slice": int(z), "x1": x1, "y1": y1, "x2": x2, "y2": y2, "score": score}
                for z, x1, y1, x2, y2, score in detection.slice_boxes.tolist()
            ],
        }
