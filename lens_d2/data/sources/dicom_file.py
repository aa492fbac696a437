"""One DICOM file: its kind, by its content, and the CT slices in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.pixels.utils import as_pixel_options
from pydicom.tag import Tag

from ...io.dicom_header import dicom_errors, looks_like_dicom
from ...io.errors import DataError, private

SUFFIXES = (".dcm", ".ima")  # a file with one of them that is no DICOM file is damaged
CT_CLASSES = (uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
# Pictures of anything: CT slices only if they are grey and their headers say so, and give their place.
CAPTURES = (
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)
# Objects with pixels that accompany a scan but are not part of it.
COMPANIONS = (uid.SegmentationStorage, uid.RTDoseStorage, uid.RTImageStorage, uid.ParametricMapStorage)
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOURS = (
    "PALETTE COLOR", "RGB", "HSV", "ARGB", "CMYK", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422",
    "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "XYB",
)  # fmt: skip

# For elements of a single slice, the macro and element that hold them for frames of an enhanced image.
FUNCTIONAL_GROUPS = {
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "RescaleType": ("PixelValueTransformationSequence", "RescaleType"),
    "ImageType": ("CTImageFrameTypeSequence", "FrameType"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "TemporalPositionIndex": ("FrameContentSequence", "TemporalPositionIndex"),
    "StackID": ("FrameContentSequence", "StackID"),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
}
# Elements that tell apart slices of a series that do not belong together. Those of another patient, study or
# coordinate system are always apart, slices that differ in another independent mark as soon as they alternate; the
# others count only if two slices lie at the same place.
IDENTITY_MARKS = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
INDEPENDENT_MARKS = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex", "StackID", *IDENTITY_MARKS,
)  # fmt: skip
MARKS = (
    *INDEPENDENT_MARKS, "NominalPercentageOfCardiacPhase", "ImageType", "SliceThickness", "ConvolutionKernel",
    "KVP", "TriggerTime", "AcquisitionTime",
)  # fmt: skip
PIXELS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip
NEEDED_PIXELS = ("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored")
OTHERS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription")
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
CONCATENATION = ("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber")
TAGS = [Tag(keyword) for keyword in (*OTHERS, *PIXELS, *FUNCTIONAL_GROUPS, *MARKS, *GROUPS, *CONCATENATION)]

PIXEL_DATA = Tag("PixelData")
# Elements with which the content of a file begins; a header is read up to there.
CONTENTS = {
    Tag(keyword)
    for keyword in (
        "PixelData",
        "FloatPixelData",
        "DoubleFloatPixelData",
        "DirectoryRecordSequence",  # DICOMDIR
        "ContentSequence",  # structured reports, key objects
        "StructureSetROISequence",
        "ROIContourSequence",
        "GraphicAnnotationSequence",  # presentation states
        "EncapsulatedDocument",
        "WaveformSequence",
    )
}
UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM, END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD


class Kind(Enum):
    """Kinds of DICOM files for someone who looks for CT."""

    CT = "CT slices"
    IMAGE = "images of another kind"
    LOCALIZER = "a scout"
    COMPANION = "an object that accompanies images, or a picture without a place"
    DAMAGED = "damaged before it says what it is"


@dataclass(frozen=True, eq=False)
class Pixels:
    """Stored pixels of a file.

    Attributes:
        path: the file.
        offset: bytes from the start of the file to the value of the element; None if the file is deflated.
        syntax: the transfer syntax in which they are encoded.
        options: of pydicom's decoders.
        padding: lowest and highest stored value that the header declares to be no image; None without one.
    """

    path: Path
    offset: int | None
    syntax: uid.UID
    options: dict
    padding: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """One CT slice: a file of its own, or a frame of an enhanced image.

    Attributes:
        pixels: of its file.
        number: of the frame in its file, from 0.
        size: columns, rows.
        spacing: (2,) mm between columns, between rows.
        position: (3,) LPS mm of the first pixel.
        decimals: (3,) decimal places with which the position is written.
        orientation: (2, 3) unit vectors along a row and down a column.
        rescale: slope and intercept to HU; None without them.
        units: of the rescaled values, usually "HU" or "".
        marks: values of MARKS, which may tell it from other slices of its series.
        instance: SOPInstanceUID of its file.
    """

    pixels: Pixels
    number: int
    size: tuple[int, int]
    spacing: np.ndarray
    position: np.ndarray
    decimals: np.ndarray
    orientation: np.ndarray
    rescale: tuple[float, float] | None
    units: str
    marks: dict[str, str]
    instance: str

    @property
    def path(self) -> Path:
        """Its file."""
        return self.pixels.path

    @property
    def name(self) -> str:
        """Its name in messages."""
        several = self.pixels.options["number_of_frames"] > 1
        name = private(self.path.name)
        return f"frame {self.number + 1} of {name}" if several else name

    @cached_property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the slice."""
        return np.cross(*self.orientation)


@dataclass(frozen=True, eq=False)
class DicomFile:
    """The content of a file's header.

    Attributes:
        path: the file.
        kind: of the file.
        words: its kind in words ("MR Image, modality MR").
        series: SeriesInstanceUID; empty if the file is cut off before.
        modality, description: of the series.
        is_capture: whether it is a secondary capture.
        is_placed: whether it gives the place of its slices.
        frames: the slices of a file of CT, without scouts; empty if the file has a fault.
        localizers: number of frames that are scouts.
        concatenation: of a file that holds a part of an enhanced image, its UID, the file's number and that of all
            its files, 0 if it is not given; None otherwise.
        fault: what is wrong with it; None if nothing is.
    """

    path: Path
    kind: Kind
    words: str = ""
    series: str = ""
    modality: str = ""
    description: str = ""
    is_capture: bool = False
    is_placed: bool = False
    frames: Sequence[Frame] = ()
    localizers: int = 0
    concatenation: tuple[str, int, int] | None = None
    fault: DataError | None = None


def read_dicom_file(path: Path) -> DicomFile | None:
    """Read the header of a file, never its pixels; None if it is neither a DICOM file nor named as one.

    Faults of the file are part of the result, not raised.
    """
    try:
        if not looks_like_dicom(path):
            if path.suffix.lower() not in SUFFIXES:
                return None
            raise DataError(path, "not a DICOM file, or a truncated one")
        with dicom_errors(path), open(path, "rb") as stream:
            return _Header(path, stream).describe()
    except DataError as fault:
        return DicomFile(path, Kind.DAMAGED, fault=fault)


class _Header:
    """A header that is being read from an open file."""

    def __init__(self, path: Path, stream: BinaryIO):
        self.path = path
        self.content: tuple[Tag, str | None, int] | None = None  # tag, representation and length in bytes
        self.values = read_partial(stream, self._is_content, force=True, specific_tags=TAGS)
        raw = (self.values.get_item(tag) for tag in self.values.keys())
        short = any(isinstance(each, RawDataElement) and len(each.value or b"") < each.length for each in raw)
        self.is_cut = short or stream.tell() > os.fstat(stream.fileno()).st_size
        self.meta = self.values.file_meta
        self.stream = stream
        self.sop_class = str(self.values.get("SOPClassUID") or self.meta.get("MediaStorageSOPClassUID") or "")
        self.modality = str(self.values.get("Modality") or "").strip().upper()

    def _is_content(self, tag, representation, length) -> bool:
        if tag in CONTENTS:
            self.content = (tag, representation, length)
            return True
        return False

    def _modality_in_words(self) -> str:
        if not self.modality:
            return "not given"
        is_code = len(self.modality) == 2  # as those of images, and unlike what anyone may have typed
        return self.modality if is_code else private(self.modality)

    def describe(self) -> DicomFile:
        kind = self._kind()
        name = uid.UID(self.sop_class).name.removesuffix(" Storage") or "no SOP class"
        if name == self.sop_class and not uid.UID(name).is_valid:  # anything may stand there
            name = private(name)
        said = DicomFile(
            self.path,
            kind,
            words=f"{name}{' in colour' * self._is_colour}, modality {self._modality_in_words()}",
            series=str(self.values.get("SeriesInstanceUID") or ""),
            modality=self.modality,
            description=" ".join(str(self.values.get("SeriesDescription") or "").split()),
            is_capture=self.sop_class in CAPTURES,
            is_placed=self._is_placed,
            concatenation=self._concatenation(),
        )
        if kind != Kind.CT:
            return replace(said, localizers=int(kind == Kind.LOCALIZER))
        try:
            with dicom_errors(self.path):
                pixels = self._pixels()
                groups = [each for each in self._frame_groups(pixels) if not self._is_localizer(each[1])]
                frames = [self._frame(pixels, *each) for each in groups]
        except DataError as fault:
            return replace(said, fault=fault)
        return replace(said, frames=frames, localizers=pixels.options["number_of_frames"] - len(frames))

    @property
    def _is_colour(self) -> bool:
        return self.values.get("PhotometricInterpretation") in COLOURS

    @cached_property
    def _is_placed(self) -> bool:
        return bool(self.values.get("ImagePositionPatient") or self.values.get(GROUPS[1]))

    def _concatenation(self) -> tuple[str, int, int] | None:
        whole, number, total = (self.values.get(keyword) for keyword in CONCATENATION)
        if not isinstance(number, int):
            return None
        return str(whole or ""), number, total if isinstance(total, int) else 0

    def _kind(self) -> Kind:
        """The kind by the SOP class; the modality may not contradict it."""
        of_ct = self.sop_class in CT_CLASSES
        if self.content is None and not (self._is_placed if of_ct else self._has_a_sound_class()):
            raise DataError(self.path, "a DICOM file that is damaged or cut off within its header")
        if self.sop_class in COMPANIONS:
            return Kind.COMPANION
        if of_ct:
            kind = Kind.LOCALIZER if self._is_localizer() else Kind.CT
            return kind if self.modality in ("CT", "") else Kind.IMAGE
        if self.content is None or self.content[0] != PIXEL_DATA:
            return Kind.COMPANION
        if self.sop_class in CAPTURES and not self._is_placed:
            return Kind.COMPANION
        if self.sop_class in CAPTURES and self._is_colour:
            return Kind.IMAGE
        if self.sop_class in (*CAPTURES, "") and self.modality == "CT":
            return Kind.CT
        return Kind.IMAGE

    def _has_a_sound_class(self) -> bool:
        """Whether the SOP class is one of the standard or, in a file that is not cut off, a vendor's."""
        if uid.UID(self.sop_class).name != self.sop_class:
            return True
        is_vendors = uid.UID(self.sop_class).is_valid and uid.UID(self.sop_class).is_private
        return is_vendors and "SOPClassUID" in self.values and not self.is_cut

    def _is_localizer(self, groups: Sequence[Dataset] = ()) -> bool:
        image_type = _find(self.values, groups, "ImageType") or ()
        return "LOCALIZER" in ([image_type] if isinstance(image_type, str) else image_type)

    def _pixels(self) -> Pixels:
        if self.content is None:
            raise DataError(self.path, "truncated: it ends before its pixels")
        missing = [keyword for keyword in NEEDED_PIXELS if self.values.get(keyword) in (None, "")]
        if missing:
            raise DataError(self.path, f"the DICOM header has no {missing[0]}")
        color = self.values.PhotometricInterpretation
        if self.values.SamplesPerPixel != 1 or color not in GREY:
            named = color if color in (*GREY, *COLOURS) else private(color)
            kind = f"{named} with {self.values.SamplesPerPixel} values per pixel"
            raise DataError(self.path, f"{kind} where a CT slice has one grey value")
        if self.values.get("HighBit", self.values.BitsStored - 1) != self.values.BitsStored - 1:
            raise DataError(self.path, "its pixels' highest bit is not where the number of bits stored puts it")
        options = as_pixel_options(self.values)
        options.setdefault("pixel_representation", 0)
        tag, representation, length = self.content
        options["pixel_keyword"] = "PixelData"
        if tag != PIXEL_DATA:
            raise DataError(self.path, "floating-point pixels where CT has whole numbers")
        implicit, little = self.values.original_encoding
        guessed = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        syntax = self.meta.get("TransferSyntaxUID") or (guessed if little else uid.ExplicitVRBigEndian)
        options["transfer_syntax_uid"] = syntax
        if representation is not None:
            options["pixel_vr"] = representation
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            return Pixels(self.path, None, syntax, options, self._padding())
        if syntax.is_encapsulated != (length == UNDEFINED_LENGTH):
            raise DataError(self.path, "its pixels are not encoded as its header says")
        offset = self.stream.tell() + (8 if representation is None else 12)
        self._check_length(offset, length, options)
        return Pixels(self.path, offset, syntax, options, self._padding())

    def _padding(self) -> tuple[int, int] | None:
        """The range of padding, signed as the pixels are, whichever sign its own representation has."""
        value, limit = (self.values.get(f"PixelPadding{end}") for end in ("Value", "RangeLimit"))
        if not isinstance(value, int):
            return None
        span = 1 << self.values.BitsAllocated
        lowest = -span // 2 if self.values.get("PixelRepresentation") == 1 else 0
        ends = [(each - lowest) % span + lowest for each in (value, limit) if isinstance(each, int)]
        return min(ends), max(ends)

    def _check_length(self, offset: int, length: int, options: dict) -> None:
        """DataError if the file holds less than the pixels that its header announces."""
        if length == UNDEFINED_LENGTH:
            if not _items_end(self.stream, offset):
                raise DataError(self.path, "truncated: it ends within its compressed pixels")
            return
        frames, rows, columns = (options[key] for key in ("number_of_frames", "rows", "columns"))
        wanted = frames * rows * columns * options["bits_allocated"] // 8
        there = min(os.fstat(self.stream.fileno()).st_size - offset, length)
        if there < wanted:
            raise DataError(self.path, f"truncated: {there} bytes of pixels where its header announces {wanted}")
        if length > wanted + wanted % 2:
            raise DataError(self.path, f"{length} bytes of pixels where its header announces {wanted}")

    def _frame_groups(self, pixels: Pixels) -> Iterator[tuple[int, list[Dataset]]]:
        """Number and functional groups of every frame, own groups before shared; a single slice has none."""
        count = pixels.options["number_of_frames"]
        shared, own = (list(self.values.get(keyword) or []) for keyword in GROUPS)
        if not own and count > 1:
            raise DataError(self.path, f"{count} frames that do not say where they lie")
        if own and len(own) != count:
            raise DataError(self.path, f"{count} frames, but {len(own)} descriptions of frames")
        for number in range(count):
            yield number, [*own[number : number + 1], *shared[:1]]

    def _frame(self, pixels: Pixels, number: int, groups: list[Dataset]) -> Frame:
        def get(keyword: str):
            return _find(self.values, groups, keyword)

        position, decimals = self._numbers(get, "ImagePositionPatient", 3)
        orientation = self._numbers(get, "ImageOrientationPatient", 6)[0].reshape(2, 3)
        lengths = np.linalg.norm(orientation, axis=1)
        if np.abs(lengths - 1).max() > 0.01 or abs(orientation[0] @ orientation[1]) > 0.01:
            raise DataError(self.path, "its rows and columns are not given as perpendicular unit vectors")
        spacing = self._numbers(get, "PixelSpacing", 2)[0][::-1]  # the file gives rows first
        if (spacing < 0).any():
            raise DataError(self.path, f"pixels of {spacing[0]:g} x {spacing[1]:g} mm")
        return Frame(
            pixels,
            number,
            (pixels.options["columns"], pixels.options["rows"]),
            spacing,
            position,
            decimals,
            orientation / lengths[:, None],
            self._rescale(get),
            str(get("RescaleType") or ""),
            {mark: _text(get(mark)) for mark in MARKS},
            str(self.values.get("SOPInstanceUID") or ""),
        )

    def _rescale(self, get) -> tuple[float, float] | None:
        if get("RescaleSlope") in (None, "") and get("RescaleIntercept") in (None, ""):
            return None
        (slope,), (intercept,) = (self._numbers(get, f"Rescale{name}", 1)[0] for name in ("Slope", "Intercept"))
        if slope == 0:
            raise DataError(self.path, "a rescale slope of 0")
        return slope, intercept

    def _numbers(self, get, keyword: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of an element, and the decimal places with which each is written."""
        value = get(keyword)
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else []
        texts = [str(value)] if count == 1 else [str(each) for each in several]
        try:
            numbers = [Decimal(text) for text in texts]
            if len(numbers) == count and all(number.is_finite() for number in numbers):
                places = [-int(number.as_tuple().exponent) for number in numbers]
                return np.array(numbers, np.float64), np.array(places)
        except (InvalidOperation, ValueError):
            pass  # reported below
        tag = Tag(keyword)
        wanted = "number" if count == 1 else f"{count} numbers"
        raise DataError(
            self.path, f"DICOM element ({tag.group:04x},{tag.element:04x}) holds no {wanted} ({keyword})"
        )


def _find(header: Dataset, groups: Sequence[Dataset], keyword: str):
    """The value of an element in the first functional group that has it, else in the header; None without it."""
    macro, name = FUNCTIONAL_GROUPS.get(keyword, (None, keyword))
    for group in groups:
        items = group.get(macro) if macro else None
        if items and name in items[0]:
            return items[0][name].value
    return header.get(keyword)


def _text(value) -> str:
    return "" if value is None else str(value)


def _items_end(stream: BinaryIO, offset: int) -> bool:
    """Whether the items of encapsulated pixels are complete, up to the delimiter behind them."""
    stream.seek(offset)
    end = os.fstat(stream.fileno()).st_size
    while len(head := stream.read(8)) == 8:
        group, element, length = (int.from_bytes(part, "little") for part in (head[:2], head[2:4], head[4:]))
        if group << 16 | element == END_OF_ITEMS:
            return True
        if group << 16 | element != ITEM or stream.tell() + length > end:
            return False
        stream.seek(length, os.SEEK_CUR)
    return False
