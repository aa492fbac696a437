"""``detections.dcm``: a DICOM structured report (TID 1500) that refers to the series, for PACS and viewers."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from .. import __version__
from ..structures.detections import Detection
from .dicom_document import DESCRIPTION, MANUFACTURER, DicomWriter, derive_uid
from .dicom_headers import DicomHeaders, readable
from .scan_report import ScanReport
from .writer import EXPORT_REGISTRY

SCHEME = "99LENSD2"  # codes of this project, where DICOM and SNOMED have none that says the same
SCORE = sr.CodedConcept("score", SCHEME, "Detection score (0 to 1)")
FPR_SCORE = sr.CodedConcept("fpr_score", SCHEME, "False-positive reduction score (0 to 1)")
COUNT = sr.CodedConcept("count", SCHEME, "Number of detections")
BOX_SIDES = tuple(sr.CodedConcept(f"box_{axis}", SCHEME, f"Extent of the box along {axis}") for axis in "xyz")
QUALITATIVE = sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500, row 12
SERIES_NUMBER = 9900
MAX_CODE, MAX_MEANING = 16, 64  # characters of a DICOM code


@EXPORT_REGISTRY.register()
class StructuredReport(DicomWriter):
    """Comprehensive SR with one volumetric region of interest per detection.

    Its regions are the outlines of the box on the slices that it covers, in pixels of each image, with 0, 0 at the
    outer corner of the first pixel. The document is preliminary and unverified. Warnings are comments among its
    qualitative evaluations.
    """

    file_name = "detections.dcm"
    purpose = "DICOM structured report (TID 1500)"

    def document(self, report: ScanReport, headers: DicomHeaders) -> sr.ComprehensiveSR:
        """Measurements of all detections; arguments as in :class:`DicomWriter`."""
        references = headers.references(report.keep_ids)
        algorithm = sr.AlgorithmIdentification(name=MANUFACTURER, version=__version__)
        content = sr.MeasurementReport(
            observation_context=_observer(),
            procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
            imaging_measurements=[_roi(each, report, references, algorithm) for each in report.detections]
            or [_nothing_found(algorithm)],
            title=codes.DCM.ImagingMeasurementReport,
        )
        if report.warnings:
            content[0].ContentSequence.append(_comments(report.warnings))
        return sr.ComprehensiveSR(
            evidence=references,
            content=content,
            series_instance_uid=generate_uid(prefix=None),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(prefix=None),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=False,
            series_description=DESCRIPTION,
        )

    def refer_to_another_study(self, document: Dataset, study_uid: str) -> None:
        """Make the images evidence from another study; arguments as in :class:`DicomWriter`."""
        document.PertinentOtherEvidenceSequence = document.CurrentRequestedProcedureEvidenceSequence
        del document.CurrentRequestedProcedureEvidenceSequence


def expert_code(name: str) -> sr.CodedConcept:
    """Code for an expert's score. Long names are cut: a checksum keeps them apart."""
    name = readable(name).replace("\\", "/")  # it parts values in DICOM
    value = name if len(name) <= MAX_CODE else f"{name[:7]}_{zlib.crc32(name.encode()):08x}"
    return sr.CodedConcept(value, SCHEME, readable(f"Score of the expert {name}", MAX_MEANING))


def _observer() -> sr.ObservationContext:
    """This software as the observer."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derive_uid(__version__),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
    )
    context = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return sr.ObservationContext(observer_device_context=context)


def _nothing_found(algorithm: sr.AlgorithmIdentification) -> sr.MeasurementsAndQualitativeEvaluations:
    """The count 0 as a measurement: a report must have one."""
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(prefix=None), identifier="Detections"),
        algorithm_id=algorithm,
        measurements=[sr.Measurement(name=COUNT, value=0, unit=codes.UCUM.NoUnits)],
    )


def _comments(texts: Sequence[str]) -> sr.ContainerContentItem:
    """Comments on the scan as a whole."""
    container = sr.ContainerContentItem(QUALITATIVE, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = sr.ContentSequence(
        sr.TextContentItem(codes.DCM.Comment, text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        for text in texts
    )
    return container


def _roi(detection: Detection, report: ScanReport, references: list, algorithm: sr.AlgorithmIdentification):
    """A detection as a volumetric region of interest with its measurements."""
    (box,) = report.grid.boxes_from_volume(detection.box)
    i1, j1, i2, j2 = (box[n] for n in (0, 1, 3, 4))
    outline = np.array([[i1, j1], [i2, j1], [i2, j2], [i1, j2], [i1, j1]], np.float32)
    regions = [
        sr.ImageRegion(
            sr.GraphicTypeValues.POLYLINE,
            outline,
            sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
        )
        for image in references[report.grid.covered(box)[2]]
    ]
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=generate_uid(prefix=None), identifier=f"Detection {detection.number}"
        ),
        referenced_regions=regions,
        finding_type=codes.SCT.Lesion,
        algorithm_id=algorithm,
        measurements=_measurements(detection),
    )


def _measurements(detection: Detection) -> list[sr.Measurement]:
    scores = [(SCORE, detection.score), (FPR_SCORE, detection.fpr_score)]
    for name, score in detection.expert_scores.items():
        scores.append((expert_code(name), score))
    measured = [
        sr.Measurement(name=name, value=round(score, 6), unit=codes.UCUM.NoUnits)
        for name, score in scores
        if score is not None
    ]
    for name, value in zip(BOX_SIDES, detection.size_mm, strict=True):
        measured.append(sr.Measurement(name=name, value=round(value, 3), unit=codes.UCUM.Millimeter))
    return measured
