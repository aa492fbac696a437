"""Base of the writers of DICOM files: the file around a document, and the study that it belongs to."""

from __future__ import annotations

import io
import uuid
import warnings

from pydicom.dataset import Dataset
from pydicom.uid import UID

from .dicom_headers import DicomHeaders
from .scan_report import ScanReport
from .writer import Writer

MANUFACTURER = "LENS-D2"
DESCRIPTION = "LENS-D2 detections, research use only"


def derive_uid(text: str) -> UID:
    """UID derived from a text: always the same, and no other software's."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{MANUFACTURER} {text}').int}")


class DicomWriter(Writer):
    """Writes a document about a DICOM series.

    A document joins the study of the series only with the patient's identity: an archive takes an empty patient ID
    under the same study for a second patient. Otherwise it has a study of its own, shared by all documents about
    that study, and refers to the images as to another one's.
    """

    def applies(self, report: ScanReport) -> bool:
        """Whether the scan is a DICOM series whose slices can be referred to."""
        return report.headers is not None and report.headers.fault is None

    def render(self, report: ScanReport) -> bytes:
        """A DICOM file with its preamble.

        Raises:
            ValueError: the scan is no DICOM series.
        """
        headers = report.headers
        if headers is None:
            raise ValueError(f"{self.file_name} can be written about a DICOM series alone")
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's quote what stands in the elements
            document = self.document(report, headers)
            if not headers.joins_study(report.keep_ids):
                self.refer_to_another_study(document, headers.study_uid)
                document.StudyInstanceUID = derive_uid(headers.study_uid)
                document.StudyDescription = DESCRIPTION
            document.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    def document(self, report: ScanReport, headers: DicomHeaders) -> Dataset:
        """The document, in the study of the series.

        Args:
            report: of the scan.
            headers: of its slices.
        """
        raise NotImplementedError

    def refer_to_another_study(self, document: Dataset, study_uid: str) -> None:
        """Mark a document's references to the images as references to another study.

        Args:
            document: changed.
            study_uid: of the study of the images.
        """
        raise NotImplementedError
