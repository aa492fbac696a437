"""What the DICOM files of a series say besides their voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from ..data.dicom_header import read_dicom_header
from ..errors import DataError

# What a reference to an image takes, and says nothing about the patient.
REFERENCE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
)
# What else a report of the same study carries, for those who asked to keep it.
IDENTITY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
SHOWN = {
    "Patient": "PatientName",
    "Patient ID": "PatientID",
    "Study date": "StudyDate",
    "Series": "SeriesDescription",
}


@dataclass(frozen=True)
class DicomHeaders:
    """The headers of a series' slices, in the order of the file grid's k axis.

    Attributes:
        slices: one header each.
    """

    slices: Sequence[Dataset]

    def references(self, keep_ids: bool) -> list[Dataset]:
        """Headers cut down to what a report that refers to the slices needs.

        Args:
            keep_ids: whether they say who the patient is and which study this is; empty elements else.
        """
        cut = []
        for header in self.slices:
            reference = Dataset()
            for keyword in (*REFERENCE, *IDENTITY):
                known = keyword in header and (keep_ids or keyword not in IDENTITY)
                setattr(reference, keyword, header[keyword].value if known else None)
            if "SpecificCharacterSet" in header:
                reference.SpecificCharacterSet = header.SpecificCharacterSet
            cut.append(reference)
        return cut

    def labels(self) -> list[str]:
        """What viewers call the slices: by the instance number, where all have one."""
        numbers = [header.get("InstanceNumber") for header in self.slices]
        return [] if None in numbers else [f"image {number}" for number in numbers]

    def patient(self) -> dict[str, str]:
        """What identifies the patient, as label -> text."""
        first = self.slices[0]
        return {label: str(first[key].value) for label, key in SHOWN.items() if key in first and first[key].value}


def read_headers(files: Sequence[Path]) -> DicomHeaders:
    """Headers of DICOM files.

    Raises:
        DataError: a file is no DICOM file, or lacks what a reference to it needs.
    """
    slices = []
    for file in files:
        header = read_dicom_header(file, (*REFERENCE, *IDENTITY, *SHOWN.values(), "InstanceNumber"))
        missing = [keyword for keyword in REFERENCE if header.get(keyword) in (None, "")]
        if missing:
            raise DataError(file, f"the DICOM header has no {missing[0]}")
        slices.append(header)
    return DicomHeaders(slices)
