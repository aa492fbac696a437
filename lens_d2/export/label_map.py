"""``detections.nii.gz``: a label map on the scan's own voxels, for ITK-SNAP and whatever else overlays masks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..data.sources.source import sitk_errors
from .scan_report import ScanReport
from .writer import EXPORT_REGISTRY, Writer


@EXPORT_REGISTRY.register()
class LabelMap(Writer):
    """The boxes, filled with the detections' numbers, in the axis order and place of the source file.

    A voxel belongs to a box if its centre lies inside; where boxes overlap, the better score wins. NIfTI readers
    know no oblique angles between axes: for a scan of a tilted gantry the grid is straightened. Of warnings the
    header's description (``descrip``) has room for their number only.
    """

    file_name = "detections.nii.gz"
    purpose = "label map on the scan's grid (ITK-SNAP)"

    def render(self, report: ScanReport) -> bytes:
        image = sitk.GetImageFromArray(draw_labels(report))
        affine = report.grid.affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        if report.warnings:
            image.SetMetaData("ITK_FileNotes", f"{len(report.warnings)} warnings, see report.html")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.file_name
            with sitk_errors(path, "the label map cannot be written"):
                sitk.WriteImage(image, str(path))
            return path.read_bytes()


def draw_labels(report: ScanReport) -> np.ndarray:
    """(k, j, i) uint16 on the file's grid: the number of the detection, 0 outside of all boxes."""
    labels = np.zeros(report.grid.size[::-1], np.uint16)
    for detection in reversed(report.detections):
        (box,) = report.grid.boxes_from_volume(detection.box)
        i, j, k = report.grid.covered(box)
        labels[k, j, i] = detection.number
    return labels
