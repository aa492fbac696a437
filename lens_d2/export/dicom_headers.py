"""What the DICOM files of a series say besides their voxels. Nothing of it is taken on trust."""

from __future__ import annotations

import codecs
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pydicom import charset, config
from pydicom.datadict import dictionary_description, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, UID_dictionary
from pydicom.valuerep import DA, TM, PersonName, validate_value

from ..io.dicom_header import read_dicom_header

UTF_8 = "ISO_IR 192"  # the character set of all that is written, whichever the series has
DEFAULT_CHARACTER_SETS = ("", "ISO_IR 6", "ISO 2022 IR 6")  # ASCII
# What a reference to an image takes, and says nothing about the patient.
UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
ONE_PER_SERIES = ("SeriesInstanceUID", "StudyInstanceUID")
# What else a report of the same study carries, for those who asked to keep it.
IDENTITY = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
OPTIONAL = ("IssuerOfPatientID",)  # not even there if empty
SHOWN = {
    "Patient": "PatientName",
    "Patient ID": "PatientID",
    "Study date": "StudyDate",
    "Series": "SeriesDescription",
}
MAX_SHOWN = 200  # characters; a name of three full component groups has 194
ENUMERATED = {"PatientSex": ("M", "F", "O")}
NAME_PARTS = 5  # family name, given name, middle name, prefix, suffix
PARSERS = {"DA": DA, "TM": TM}  # raise ValueError on days and hours that do not exist
# Control characters, halves of characters (of file names that are no UTF-8), ends of lines and paragraphs.
UNFIT = ("Cc", "Cs", "Zl", "Zp")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Characters of a text that are sure to be the ones that were meant.
ASCII = re.compile(r"[\0-\x7f]*")
BEYOND_LATIN_1 = re.compile(r"[^\x80-\xff]*")
ANY = re.compile(r".*", re.DOTALL)


class Text(NamedTuple):
    """The text of an element.

    Attributes:
        value: as far as it can be decoded; empty where the element is absent.
        allowed: whether DICOM allows it there.
    """

    value: str
    allowed: bool


@dataclass(frozen=True)
class SliceHeader:
    """What is used of one slice's header.

    Attributes:
        uids: by keyword; None where the file has no valid one.
        number: InstanceNumber, or None.
        texts: by keyword, of all elements in IDENTITY and SHOWN.
    """

    uids: Mapping[str, str | None]
    number: int | None
    texts: Mapping[str, Text]

    @property
    def sop_instance_uid(self) -> str | None:
        return self.uids["SOPInstanceUID"]


@dataclass(frozen=True)
class DicomHeaders:
    """The headers of a series' slices, in the order of the file grid's k axis.

    Attributes:
        slices: one header each.
    """

    slices: Sequence[SliceHeader]

    @cached_property
    def fault(self) -> str | None:
        """Why no report can refer to the slices; None if one can."""
        count = len(self.slices)
        for keyword in UIDS:
            found = [each.uids[keyword] for each in self.slices]
            name = dictionary_description(keyword)
            if None in found:
                return f"{found.count(None)} of {count} slices have no valid {name}"
            distinct = set(found)
            if keyword == "SOPInstanceUID" and len(distinct) < count:
                return f"{count} slices share {len(distinct)} {name}{'s' if len(distinct) > 1 else ''}"
            if keyword in ONE_PER_SERIES and len(distinct) > 1:
                return f"the slices have {len(distinct)} different {name}s"
            if keyword == "SOPClassUID" and not distinct <= UID_dictionary.keys():
                return f"the slices have an unknown {name}"
        return None

    @cached_property
    def study_uid(self) -> str:
        """Of the study; only if there is no fault."""
        return self.slices[0].uids["StudyInstanceUID"] or ""

    @cached_property
    def unfit(self) -> dict[str, str]:
        """What of IDENTITY cannot be carried on, as keyword -> why."""
        reasons = {}
        for keyword in IDENTITY:
            texts = {each.texts[keyword] for each in self.slices}
            if not all(text.allowed for text in texts):
                reasons[keyword] = "has a value that DICOM does not allow"
            elif len(texts) > 1:
                reasons[keyword] = "differs between the slices"
        return reasons

    def joins_study(self, keep_ids: bool) -> bool:
        """Whether a report may be filed with the series, which takes the same patient."""
        return keep_ids and not {"PatientID", "IssuerOfPatientID"} & self.unfit.keys()

    def references(self, keep_ids: bool) -> list[Dataset]:
        """Headers cut down to what a report that refers to the slices needs, in UTF-8.

        Args:
            keep_ids: whether they say who the patient is and which study this is; else, and where DICOM does not
                allow what the series says, the elements are empty.
        """
        identity = {keyword: "" for keyword in IDENTITY}
        if keep_ids:
            known = self.slices[0].texts
            identity |= {keyword: known[keyword].value for keyword in IDENTITY if keyword not in self.unfit}
        references = []
        for header in self.slices:
            reference = Dataset()
            reference.SpecificCharacterSet = UTF_8
            for keyword, uid in header.uids.items():
                setattr(reference, keyword, uid)
            for keyword, text in identity.items():
                if text or keyword not in OPTIONAL:
                    setattr(reference, keyword, text or None)
            references.append(reference)
        return references

    def warnings(self, keep_ids: bool) -> list[str]:
        """What a report that refers to the slices lacks, a line each, without the values."""
        if not keep_ids:
            return []
        lines = [
            f"{dictionary_description(keyword)} {reason}: left empty in the structured report"
            for keyword, reason in self.unfit.items()
        ]
        if not self.joins_study(keep_ids):
            lines.append("the structured report does not join the scan's study, for it cannot name its patient")
        return lines

    def labels(self) -> list[str]:
        """What viewers call the slices: by the instance number, where all have one of their own."""
        numbers = [header.number for header in self.slices]
        if None in numbers or len(set(numbers)) < len(numbers):
            return []
        return [f"image {number}" for number in numbers]

    def patient(self) -> dict[str, str]:
        """What identifies the patient, as label -> text."""
        texts = {label: readable(self.slices[0].texts[key].value, MAX_SHOWN) for label, key in SHOWN.items()}
        return {label: text for label, text in texts.items() if text}


def read_headers(files: Sequence[Path]) -> DicomHeaders:
    """Headers of DICOM files.

    Raises:
        DataError: a file is no DICOM file.
    """
    return DicomHeaders([_read_header(file) for file in files])


def is_unfit(character: str) -> bool:
    """Whether a character cannot be shown or encoded."""
    return character == REPLACEMENT or unicodedata.category(character) in UNFIT


def readable(text: str, limit: int | None = None) -> str:
    """A text in one line that can be shown and encoded.

    Args:
        text: of a header, a file name, a message.
        limit: characters that are kept; None keeps all.
    """
    line = " ".join(str(text).split())
    line = "".join(REPLACEMENT if is_unfit(each) else each for each in line)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def is_allowed(keyword: str, text: str) -> bool:
    """Whether DICOM allows a text as the only value of an element."""
    if not text:
        return True
    if "\\" in text or any(map(is_unfit, text)) or text not in ENUMERATED.get(keyword, (text,)):
        return False
    vr = dictionary_VR(keyword)
    if vr == "PN" and any(group.count("^") >= NAME_PARTS for group in text.split("=")):
        return False
    try:
        validate_value(vr, text, config.RAISE)
        PARSERS.get(vr, str)(text)
    except ValueError:
        return False
    return True


def _read_header(file: Path) -> SliceHeader:
    header = read_dicom_header(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's quote what stands in the elements
        number = _value(header, "InstanceNumber")
        sure = _sure_characters(header)
        return SliceHeader(
            uids={keyword: _uid(header, keyword) for keyword in UIDS},
            number=int(number) if isinstance(number, int) else None,
            texts={keyword: _text(header, keyword, sure) for keyword in {*IDENTITY, *SHOWN.values()}},
        )


def _value(header: Dataset, keyword: str):
    """The value of an element, several ones in one text; None where it is absent or cannot be decoded."""
    try:
        value = header.get(keyword)
        if isinstance(value, MultiValue):
            return "\\".join(map(str, value))
        return str(value) if isinstance(value, PersonName) else value
    except Exception:  # on damaged bytes pydicom raises whatever it stumbles over
        return None


def _uid(header: Dataset, keyword: str) -> str | None:
    value = _value(header, keyword)
    return str(value) if isinstance(value, str) and UID(value).is_valid else None


def _text(header: Dataset, keyword: str, sure: re.Pattern) -> Text:
    value = _value(header, keyword)
    if not isinstance(value, str):
        return Text("", keyword not in header or header.get_item(keyword).value in (None, b""))
    text = value.strip()
    return Text(text, sure.fullmatch(text) is not None and is_allowed(keyword, text))


def _sure_characters(header: Dataset) -> re.Pattern:
    """The characters that a file's texts may have if none is to come of a guess.

    Only ASCII is sure where the file names no character set, or one that nobody knows. Where the first of several
    is the default one, which ends at ASCII, pydicom takes the bytes beyond for Latin-1.
    """
    named = str(_value(header, "SpecificCharacterSet") or "").split("\\")
    try:
        with config.strict_reading():
            found = {codecs.lookup(each).name for each in charset.convert_encodings(named)}
    except (LookupError, ValueError):
        return ASCII
    if not found <= {codecs.lookup(each).name for each in charset.python_encoding.values()}:
        return ASCII
    return BEYOND_LATIN_1 if named[0] in DEFAULT_CHARACTER_SETS else ANY
