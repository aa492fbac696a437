"""``detections.nii.gz``: a label map on the scan's own voxels, for ITK-SNAP and other viewers of masks."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np

from .scan_report import ScanReport
from .writer import EXPORT_REGISTRY, Writer

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LONGEST = 32767  # voxels along an axis that NIfTI-1 has room for


@EXPORT_REGISTRY.register()
class LabelMap(Writer):
    """Boxes filled with the detections' numbers, in the axis order and place of the source file.

    A voxel belongs to a box if its centre lies inside. Where boxes overlap, the smaller one lies on top, so that
    none hides another within it, and of equal ones that with the better score. If the scan's axes are not at right
    angles (a tilted gantry), neither are those of the sform; the qform stands the slices on their normal, as ITK
    does with the scan itself, so that the map lies on it in programs that know no others. The header's description
    (``descrip``) has room for the number of warnings only.
    """

    file_name = "detections.nii.gz"
    purpose = "label map on the scan's grid (ITK-SNAP)"

    def render(self, report: ScanReport) -> bytes:
        """A compressed NIfTI file, of version 2 if an axis is too long for the first."""
        image_class = nib.Nifti1Image if max(report.grid.size) <= LONGEST else nib.Nifti2Image
        image = image_class(draw_labels(report).T, LPS_TO_RAS @ report.grid.affine)
        image.set_sform(image.affine, code="scanner")
        image.set_qform(_upright(image.affine), code="scanner")
        image.header.set_xyzt_units("mm")
        if report.warnings:
            image.header["descrip"] = f"warnings: {len(report.warnings)}, see report.html"
        return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _upright(affine: np.ndarray) -> np.ndarray:
    """A (4, 4) affine whose third axis, at its length, stands on the plane of the first two."""
    i, j, k = affine[:3, :3].T
    normal = np.cross(i, j)
    upright = affine.copy()
    upright[:3, 2] = np.copysign(np.linalg.norm(k) / np.linalg.norm(normal), normal @ k) * normal
    return upright


def draw_labels(report: ScanReport) -> np.ndarray:
    """(k, j, i) uint16 numbers of the detections on the file's grid, 0 outside all boxes.

    Raises:
        OverflowError: a number above 65535.
    """
    labels = np.zeros(report.grid.size[::-1], np.uint16)
    boxes = [report.grid.boxes_from_volume(detection.box)[0] for detection in report.detections]
    sizes = [np.prod(box[3:] - box[:3]) for box in boxes]
    for row in np.argsort(sizes, kind="stable")[::-1]:
        detection, box = report.detections[row], boxes[row]
        i, j, k = report.grid.covered(box)
        labels[k, j, i] = detection.number
    return labels
