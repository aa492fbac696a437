"""``detections.seg.dcm``: a DICOM segmentation with a box per detection, for PACS and viewers of masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, islice, starmap

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from .. import __version__
from ..structures.detections import Detection
from ..visualization.planes import score_color
from .dicom_document import DESCRIPTION, MANUFACTURER, DicomWriter
from .dicom_headers import FRAME, DicomHeaders, readable
from .scan_report import FileGrid, ScanReport
from .writer import EXPORT_REGISTRY

Covered = tuple[slice, slice, slice]  # voxels of a box, along i, j, k

SERIES_NUMBER = 9901
BOXES = "Boxes around detections, not outlines of lesions. Research use only."
MAX_COMMENT = 10240  # characters of Image Comments


@EXPORT_REGISTRY.register()
class SegmentationFile(DicomWriter):
    """Binary segmentation with one segment per detection: its box, filled, on the scan's own voxels.

    A voxel belongs to a box if its centre lies inside, as in the label map; boxes may overlap. Only slices with a
    box have a frame, a bit per voxel. Every segment says that it is a box. What it tells of the patient, and the
    study that it joins, are the structured report's. Warnings are among the image comments.
    """

    file_name = "detections.seg.dcm"
    purpose = "DICOM segmentation: a box per detection"

    def applies(self, report: ScanReport) -> bool:
        """Whether the scan is a DICOM series that a segmentation can lie on, with a detection at least."""
        headers = report.headers
        usable = super().applies(report) and headers is not None and headers.frame_of_reference is not None
        return usable and len(report.detections) > 0

    def document(self, report: ScanReport, headers: DicomHeaders) -> Segmentation:
        """Boxes of all detections; arguments as in :class:`DicomWriter`.

        Fills the frames of a document that highdicom lays out on slices of one pixel. highdicom itself takes an
        array with every slice for every segment: gigabytes for a hundred boxes.
        """
        boxes = report.grid.boxes_from_volume(np.array([each.box for each in report.detections]))
        covered = [report.grid.covered(box) for box in boxes]
        planes = sorted({k for _, _, along in covered for k in range(along.start, along.stop)})
        presence = np.array([[along.start <= k < along.stop for _, _, along in covered] for k in planes], np.uint8)
        sources = _sources(report.grid, headers, report.keep_ids)
        document = Segmentation(
            source_images=[sources[k] for k in planes],
            pixel_array=presence[:, None, None],
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_segment(n, each) for n, each in enumerate(report.detections, 1)],
            series_instance_uid=generate_uid(prefix=None),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(prefix=None),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=__version__,
            device_serial_number=__version__,
            content_label="DETECTIONS",
            content_description="Boxes around detections, not outlines of lesions",
            series_description=DESCRIPTION,
            pixel_measures=_pixel_measures(report.grid),
        )
        document.Columns, document.Rows = report.grid.size[:2]
        document.PixelData = _pack(_boxes_of_frames(document, covered), document.Rows, document.Columns)
        document.SegmentsOverlap = "YES" if any(starmap(_overlap, combinations(covered, 2))) else "NO"
        document.ImageComments = readable(" | ".join([BOXES, *report.warnings]), MAX_COMMENT)
        return document

    def refer_to_another_study(self, document: Dataset, study_uid: str) -> None:
        """List the slices under the other study; arguments as in :class:`DicomWriter`."""
        other = Dataset()
        other.StudyInstanceUID = study_uid
        other.ReferencedSeriesSequence = document.ReferencedSeriesSequence
        document.StudiesContainingOtherReferencedInstancesSequence = [other]
        del document.ReferencedSeriesSequence


def _boxes_of_frames(document: Segmentation, covered: Sequence[Covered]) -> Iterator[Covered]:
    """The box that each frame shows a slice of."""
    (shared,) = document.SharedFunctionalGroupsSequence
    for item in document.PerFrameFunctionalGroupsSequence:
        (segment,) = (item if len(covered) > 1 else shared).SegmentIdentificationSequence
        yield covered[segment.ReferencedSegmentNumber - 1]


def _pack(boxes: Iterable[Covered], rows: int, columns: int) -> bytes:
    """Bits of filled boxes, one frame after the other, padded to whole words."""
    packed = []
    boxes = iter(boxes)
    while group := list(islice(boxes, 8)):  # the bits of eight frames fill whole bytes
        frames = np.zeros((len(group), rows, columns), bool)
        for frame, (i, j, _) in zip(frames, group, strict=True):
            frame[j, i] = True
        packed.append(np.packbits(frames, bitorder="little").tobytes())
    bits = b"".join(packed)
    return bits + b"\0" * (len(bits) % 2)


def _overlap(one: Covered, other: Covered) -> bool:
    """Whether two boxes share a voxel."""
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _sources(grid: FileGrid, headers: DicomHeaders, keep_ids: bool) -> list[Dataset]:
    """References to the slices with their places, along k, as if they had one pixel."""
    sources = headers.references(keep_ids)
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    (measures,) = _pixel_measures(grid)
    for k, source in enumerate(sources):
        setattr(source, FRAME, headers.frame_of_reference)
        source.Modality = "CT"
        source.Columns, source.Rows = 1, 1
        source.PixelSpacing = measures.PixelSpacing
        source.SliceThickness = measures.SliceThickness
        source.ImageOrientationPatient = _decimals((grid.affine[:3, :2] / spacing[:2]).T.ravel())
        source.ImagePositionPatient = _decimals(grid.affine[:3, 3] + k * grid.affine[:3, 2])
    return sources


def _pixel_measures(grid: FileGrid) -> PixelMeasuresSequence:
    """Sides of a voxel; the interval of slices is measured across them, whatever the tilt of the gantry."""
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    normal = np.cross(*(grid.affine[:3, :2] / spacing[:2]).T)
    (interval,) = _decimals([abs(float(normal @ grid.affine[:3, 2]))])
    return PixelMeasuresSequence(_decimals([spacing[1], spacing[0]]), interval, interval)


def _decimals(values: Sequence[float] | np.ndarray) -> list[float]:
    """Numbers that fit into DICOM's decimal strings."""
    return [float(f"{value:.9g}") for value in values]


def _segment(number: int, detection: Detection) -> SegmentDescription:
    """A detection as a segment."""
    segment = SegmentDescription(
        segment_number=number,
        segment_label=f"Detection {detection.number}, box",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            MANUFACTURER, family=codes.DCM.ArtificialIntelligence, version=__version__
        ),
        tracking_uid=generate_uid(prefix=None),
        tracking_id=f"Detection {detection.number}",
        display_color=CIELabColor.from_rgb(*(round(255 * channel) for channel in score_color(detection.score))),
    )
    segment.SegmentDescription = (
        f"Box around detection {detection.number}, not an outline; score {detection.score:.2f}"
    )
    return segment
