"""Headers of a DICOM series for the outputs: references, identity, names of slices. None is taken on trust."""

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
# Needed for a reference to an image; they say nothing about the patient.
UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
FRAME = "FrameOfReferenceUID"  # needed for a segmentation only
ONE_PER_SERIES = ("SeriesInstanceUID", "StudyInstanceUID")
# Carried by a report of the same study as well, if asked for.
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
OPTIONAL = ("IssuerOfPatientID",)  # absent if empty
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
# Control characters, surrogates (of file names that are not in UTF-8), ends of lines and paragraphs.
UNFIT = ("Cc", "Cs", "Zl", "Zp")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Characters of a text that can be relied on.
ASCII = re.compile(r"[\0-\x7f]*")
BEYOND_LATIN_1 = re.compile(r"[^\x80-\xff]*")
ANY = re.compile(r".*", re.DOTALL)


class Text(NamedTuple):
    """The text of an element.

    Attributes:
        value: as far as it can be decoded; empty if the element is absent.
        allowed: whether DICOM allows it there.
    """

    value: str
    allowed: bool


@dataclass(frozen=True)
class SliceHeader:
    """The elements of one slice's header that outputs use.

    Attributes:
        uids: by keyword; None if the file has no valid one.
        number: InstanceNumber, or None.
        texts: by keyword, of all elements in IDENTITY and SHOWN.
    """

    uids: Mapping[str, str | None]
    number: int | None
    texts: Mapping[str, Text]

    @property
    def sop_instance_uid(self) -> str | None:
        """UID of the image, or None."""
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
        """Reason why no report can refer to the slices; None if one can."""
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
    def frame_of_reference(self) -> str | None:
        """UID of the frame of reference that all slices share, or None."""
        found = {each.uids[FRAME] for each in self.slices}
        return found.pop() if len(found) == 1 else None

    @cached_property
    def study_uid(self) -> str:
        """UID of the study, if there is no fault."""
        return self.slices[0].uids["StudyInstanceUID"] or ""

    @cached_property
    def unfit(self) -> dict[str, str]:
        """Elements of IDENTITY that cannot be carried on, as keyword -> reason."""
        reasons = {}
        for keyword in IDENTITY:
            texts = {each.texts[keyword] for each in self.slices}
            if not all(text.allowed for text in texts):
                reasons[keyword] = "has a value that DICOM does not allow"
            elif len(texts) > 1:
                reasons[keyword] = "differs between the slices"
        return reasons

    def joins_study(self, keep_ids: bool) -> bool:
        """Whether a report names the same patient, so that it may be filed with the series."""
        return keep_ids and not {"PatientID", "IssuerOfPatientID"} & self.unfit.keys()

    def references(self, keep_ids: bool) -> list[Dataset]:
        """Headers cut down to the elements that a report needs to refer to the slices, in UTF-8.

        Args:
            keep_ids: whether they name the patient and the study. Otherwise these elements are empty, as are
                those with a value that DICOM does not allow.
        """
        identity = {keyword: "" for keyword in IDENTITY}
        if keep_ids:
            known = self.slices[0].texts
            identity |= {keyword: known[keyword].value for keyword in IDENTITY if keyword not in self.unfit}
        references = []
        for header in self.slices:
            reference = Dataset()
            reference.SpecificCharacterSet = UTF_8
            for keyword in UIDS:
                setattr(reference, keyword, header.uids[keyword])
            for keyword, text in identity.items():
                if text or keyword not in OPTIONAL:
                    setattr(reference, keyword, text or None)
            references.append(reference)
        return references

    def warnings(self, keep_ids: bool) -> list[str]:
        """A line, without the value, on each element that a report on the slices has to leave empty."""
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
        """Names of the slices in viewers, by instance number; none unless each slice has its own."""
        numbers = [header.number for header in self.slices]
        if None in numbers or len(set(numbers)) < len(numbers):
            return []
        return [f"image {number}" for number in numbers]

    def patient(self) -> dict[str, str]:
        """Identity of the patient, as label -> text."""
        texts = {label: readable(self.slices[0].texts[key].value, MAX_SHOWN) for label, key in SHOWN.items()}
        return {label: text for label, text in texts.items() if text}


def read_headers(files: Sequence[Path]) -> DicomHeaders:
    """Read the headers of DICOM files.

    Raises:
        DataError: a file is no DICOM file.
    """
    return DicomHeaders([_read_header(file) for file in files])


def is_unfit(character: str) -> bool:
    """Whether a character cannot be shown or encoded."""
    return character == REPLACEMENT or unicodedata.category(character) in UNFIT


def readable(text: str, limit: int | None = None) -> str:
    """A text of foreign origin as one line that every output can show and encode.

    Args:
        text: of a header, a file name, a message.
        limit: most characters; a longer text ends in an ellipsis. None keeps all.
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
            uids={keyword: _uid(header, keyword) for keyword in (*UIDS, FRAME)},
            number=int(number) if isinstance(number, int) else None,
            texts={keyword: _text(header, keyword, sure) for keyword in {*IDENTITY, *SHOWN.values()}},
        )


def _value(header: Dataset, keyword: str):
    """The value of an element, several joined to one text; None if it is absent or cannot be decoded."""
    try:
        value = header.get(keyword)
        if isinstance(value, MultiValue):
            return "\\".join(map(str, value))
        return str(value) if isinstance(value, PersonName) else value
    except Exception:  # pydicom raises anything on damaged bytes
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
    """The characters of a file's texts that pydicom decodes without a guess.

    ASCII alone if the file names no character set, or an unknown one. If the first of several is the default one,
    which ends at ASCII, pydicom takes the bytes beyond it for Latin-1.
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
