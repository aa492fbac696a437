"""``detections.mrk.json``: a region of interest (ROI) per detection, for 3D Slicer."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from ..structures.detections import Detection
from ..structures.geometry import VolumeGeometry
from ..visualization.planes import score_color
from .scan_report import ScanReport
from .writer import EXPORT_REGISTRY, Writer

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


@EXPORT_REGISTRY.register()
class SlicerMarkups(Writer):
    """Markups of schema 1.0.3, in LPS mm; boxes follow the axes of the scan, oblique ones too.

    Warnings stand in the description of every ROI, where 3D Slicer shows them, and beside the ROIs. To open the
    file, drag it into 3D Slicer's window.
    """

    file_name = "detections.mrk.json"
    purpose = "3D Slicer: one ROI per detection"

    def render(self, report: ScanReport) -> bytes:
        """JSON in ASCII."""
        rois = [make_roi(detection, report.geometry, report.warnings) for detection in report.detections]
        content = {"@schema": SCHEMA, "markups": rois, "warnings": list(report.warnings)}
        return (json.dumps(content, indent=1) + "\n").encode()


def make_roi(detection: Detection, geometry: VolumeGeometry, warnings: Sequence[str] = ()) -> dict:
    """Markup of the type ROI for a detection.

    Args:
        detection: of the scan.
        geometry: of the scan.
        warnings: about the scan.
    """
    center, orientation, size = oriented_box(detection, geometry)
    color = [round(channel, 4) for channel in score_color(detection.score)]
    name = f"Detection {detection.number} ({detection.score:.2f})"
    notes = [f"{key} {score:.2f}" for key, score in detection.expert_scores.items()]
    notes += [f"Warning: {warning}" for warning in warnings]
    flat = orientation.ravel().tolist()
    return {
        "type": "ROI",
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": True,
        "labelFormat": "%N",
        "lastUsedControlPointNumber": 1,
        "roiType": "Box",
        "insideOut": False,
        "center": center.tolist(),
        "orientation": flat,
        "size": size.tolist(),
        "controlPoints": [
            {
                "id": "1",
                "label": name,
                "description": "  ".join(notes),
                "associatedNodeID": "",
                "position": center.tolist(),
                "orientation": flat,
                "selected": True,
                "locked": True,
                "visibility": True,
                "positionStatus": "defined",
            }
        ],
        "measurements": [],
        "display": {
            "visibility": True,
            "opacity": 1.0,
            "color": color,
            "selectedColor": color,
            "propertiesLabelVisibility": True,
            "pointLabelsVisibility": False,
            "textScale": 3.0,
        },
    }


def oriented_box(detection: Detection, geometry: VolumeGeometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The box of a detection along the scan's axes.

    If these are not at right angles (a tilted gantry), it is the box around the detection along the world's axes.

    Returns:
        (3,) centre, LPS mm; (3, 3) orientation, whose columns are the box's axes; (3,) size, mm.
    """
    columns = np.asarray(geometry.affine)[:3, :3] / geometry.spacing
    columns = columns * np.where(np.diag(columns) < 0, -1.0, 1.0)  # the scan's axes, whichever way it counts
    if np.allclose(columns.T @ columns, np.eye(3), atol=1e-3):
        columns[:, 2] *= np.sign(np.linalg.det(columns))
        low, high = np.array(detection.box).reshape(2, 3)
        middle = (low + high) / 2 - [0.5, 0.5, 0.0]  # edges to centre indices
        return geometry.index_to_world(middle[None])[0], columns, np.array(detection.size_mm)
    low, high = np.array(detection.world_box).reshape(2, 3)
    return (low + high) / 2, np.eye(3), high - low
