"""The CT scans among DICOM files: series, or parts of series whose slices do not belong together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...io.errors import DataError, count_of, counted, private, replace_private
from .dicom_file import IDENTITY_MARKS, INDEPENDENT_MARKS, MARKS, DicomFile, Frame, Kind, read_dicom_file
from .dicom_pixels import read_frame

SAME_PLACE = 0.01  # mm; nearer slices lie at the same place
# Endings of marks whose values are not shown, as they may identify a patient.
PRIVATE = ("UID", "PatientID", "Time", "folder")
FREE_TEXT = ("ConvolutionKernel", "StackID")  # shown only where a person picks a part
IMAGE_TYPES = {
    "ORIGINAL", "DERIVED", "MIXED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "VOLUME", "NONE", "MPR",
    "MAX_IP", "MIN_IP", "MEAN_IP", "AVERAGE", "RESAMPLED", "REFORMATTED", "FILTERED", "ADDITION", "SUBTRACTION",
    "CARDIAC", "ANGIO", "PERFUSION", "STATIC", "ENERGY_PROP_WT", "VIRTUAL_MONO", "MONOENERGETIC",
}  # fmt: skip
# Endings of files that may be slices once they are unpacked or completely copied.
PACKED = re.compile(r"(?<=.)\.(gz|bz2|xz|zst|zip|z|part|partial|filepart|crdownload|download|tmp)$", re.IGNORECASE)
FOLDER = "folder"  # the last mark: two copies of a series may differ in nothing else


@dataclass(frozen=True, eq=False)
class Part:
    """Slices of one series that make one scan: usually all of them.

    Attributes:
        series: SeriesInstanceUID.
        uid: the same; for one of several parts with its number, ``UID:1``.
        number: of the part in its series, from 1.
        count: of the series' parts.
        frames: upwards along their normal; those at the same place are adjacent.
        paths: the files of the series that are its own or have a fault.
        told_by: its difference from the other parts ("AcquisitionNumber 2"), free text in it marked as
            :func:`lens_d2.io.errors.private`; empty for a whole series.
        description: modality and description of the series.
        warnings: what was left out, a line each.
        fault: of one of the files, because of which the scan cannot be read; None without one.
    """

    series: str
    uid: str
    number: int
    count: int
    frames: Sequence[Frame]
    paths: Sequence[Path]
    told_by: str = ""
    description: str = ""
    warnings: Sequence[str] = ()
    fault: DataError | None = None

    def __str__(self) -> str:
        count = counted(len(self.frames), "image")
        told_by = replace_private(self.told_by, str)
        fault = self.fault.fault if self.fault and not self.frames else ""
        return "  ".join(filter(None, [self.uid, count, self.description, told_by, fault]))


@dataclass(frozen=True, eq=False)
class DicomIndex:
    """The content of DICOM files.

    Attributes:
        parts: the CT scans, in the order of the series' first files.
        damaged: files that end before they name their series.
        others: images of series without a slice of CT, such as MR.
    """

    parts: Sequence[Part]
    damaged: Sequence[DicomFile]
    others: Sequence[DicomFile]

    def pick(self, uid: str) -> list[Part]:
        """The part with this UID, or all parts of the series with it."""
        return [part for part in self.parts if uid in (part.uid, part.series)]


def read_index(paths: Iterable[Path]) -> DicomIndex:
    """Read the header of each file once, and find the scans among them. Other formats are ignored."""
    return find_parts(read_dicom_files(paths))


def is_packed(path: Path) -> bool:
    """Whether a file's name is that of a packed file or of half a copy."""
    return PACKED.search(path.name) is not None


def read_dicom_files(paths: Iterable[Path]) -> list[DicomFile]:
    """Read the headers of files, without those of other formats; one named like slices beside it is damaged."""
    files = {path: read_dicom_file(path) for path in paths}
    slices = {_pattern(path) for path, file in files.items() if file is not None and file.kind == Kind.CT}
    for path, file in files.items():
        whole = PACKED.sub("", path.name)
        if (
            file is None
            and _pattern(path.with_name(whole)) in slices
            and (whole == path.name or path.with_name(whole) not in files)
        ):
            fault = DataError(path, "cannot be read as DICOM, but is called like the slices beside it")
            files[path] = DicomFile(path, Kind.DAMAGED, fault=fault)
    return [file for file in files.values() if file is not None]


def find_parts(files: Sequence[DicomFile]) -> DicomIndex:
    """Group files by series, and split series of CT whose slices do not belong together."""
    # Slices without a SeriesInstanceUID are a series in their folder alone: elsewhere may be another patient's.
    series: dict[tuple[str, Path | None], list[DicomFile]] = defaultdict(list)
    damaged, others, parts = [], [], []
    for file in files:
        if file.kind == Kind.DAMAGED or (file.kind == Kind.CT and file.fault is not None and not file.series):
            damaged.append(file)
        elif file.kind != Kind.COMPANION:
            series[file.series, None if file.series else file.path.parent].append(file)
    for (uid, _), members in series.items():
        if any(file.kind == Kind.CT and file.is_placed for file in members):
            parts += _parts(uid, members)
        else:
            others += members
    return DicomIndex(parts, damaged, others)


def _pattern(path: Path) -> tuple[Path, str]:
    """A file's folder and its name with # for every number."""
    return path.parent, re.sub(r"\d+", "#", path.name)


def _parts(uid: str, members: Sequence[DicomFile]) -> list[Part]:
    """The parts of a series that has CT slices."""
    strangers = (file for file in members if file.kind == Kind.IMAGE)
    faults = [file.fault for file in members if file.fault is not None]
    faults += [DataError(file.path, f"{file.words}, in a series of CT") for file in strangers]
    frames, warnings = [frame for file in members for frame in file.frames], []
    localizers = sum(file.localizers for file in members)
    if localizers:
        warnings.append(f"{count_of(localizers, 'localizer image')} left out")
    if any(file.is_capture for file in members):
        warnings.append("the slices are secondary captures: their values may have been windowed for display")
    first = next(file for file in members if file.kind == Kind.CT)
    description = "  ".join(filter(None, [first.modality, first.description]))
    warnings += _absent_files(members)
    frames, copies = _without_copies(frames)
    if copies:
        warnings.append(f"{count_of(copies, 'image')} there twice with the same pixels: left out once")
    stacks = _split(frames) or [([], "")]
    folders = [{frame.path.parent for frame in stack} for stack, _ in stacks]
    parts = []
    for number, (stack, told_by) in enumerate(stacks, 1):
        own = list(warnings)
        if len(stacks) > 1:
            images = f"{len(stack)} of {len(frames)} images, {replace_private(told_by, lambda text: '...')}"
            own.append(f"part {number} of {len(stacks)} of its series: {images}")
        name = uid if len(stacks) == 1 else f"{uid}:{number}"
        elsewhere = _folders_apart(folders, number - 1)
        own_faults = [fault for fault in faults if Path(fault.path).parent not in elsewhere]
        paths = list(dict.fromkeys([*(frame.path for frame in stack), *(Path(each.path) for each in own_faults)]))
        fault = own_faults[0] if own_faults else None
        parts.append(Part(uid, name, number, len(stacks), stack, paths, told_by, description, own, fault))
    return parts


def _folders_apart(folders: Sequence[set[Path]], index: int) -> set[Path]:
    """The folders of the other parts; none if this part shares one of them."""
    others = set().union(*folders[:index], *folders[index + 1 :])
    return set() if folders[index] & others else others


def _absent_files(members: Sequence[DicomFile]) -> Iterator[str]:
    """A line for each concatenation of enhanced images whose files are not all there."""
    numbers: dict[str, set[int]] = defaultdict(set)
    totals: dict[str, int] = {}
    for file in members:
        if file.concatenation is not None:
            whole, number, total = file.concatenation
            numbers[whole].add(number)
            totals[whole] = max(total, number, totals.get(whole, 0))
    for whole, there in numbers.items():
        if len(there) < totals[whole]:
            yield f"{len(there)} of the {totals[whole]} files that its images are spread over: slices are missing"


# Splitting a series


def _split(frames: Sequence[Frame]) -> list[tuple[list[Frame], str]]:
    """The slices of each scan, in the order of their heights, and their difference from the others."""
    shapes = _by_shape(frames)
    found = []
    for shape in shapes:
        told_by = _describe_shape(shape[0]) if len(shapes) > 1 else ""
        found += [(stack, ", ".join(filter(None, [told_by, more]))) for stack, more in _by_marks(shape)]
    return found


def _by_shape(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Slices of the same size, pixel spacing and orientation, each upwards along their normal."""
    shapes: list[list[Frame]] = []
    for frame in frames:
        alike = (shape for shape in shapes if _have_one_shape(shape[0], frame))
        shape = next(alike, None)
        if shape is None:
            shapes.append([frame])
        else:
            shape.append(frame)
    return [sorted(shape, key=lambda frame: float(frame.position @ shape[0].normal)) for shape in shapes]


def _have_one_shape(a: Frame, b: Frame) -> bool:
    return (
        a.size == b.size
        and np.allclose(a.spacing, b.spacing, rtol=1e-3, atol=0)
        and np.allclose(a.orientation, b.orientation, rtol=0, atol=1e-3)
    )


def _describe_shape(frame: Frame) -> str:
    size, spacing = (" x ".join(f"{number:g}" for number in pair) for pair in (frame.size, frame.spacing))
    return f"{size} pixels of {spacing} mm across ({', '.join(f'{x:.2g}' for x in frame.normal + 0.0)})"


def _by_marks(frames: list[Frame]) -> list[tuple[list[Frame], str]]:
    """Split slices of one shape by the mark that separates them best, and each part again."""
    best = None
    for mark in (*MARKS, FOLDER):
        groups: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[_mark(frame, mark)].append(frame)
        if len(groups) < 2:
            continue
        always = mark in IDENTITY_MARKS and all(groups) and 2 * len(groups) <= len(frames)
        if always or _are_apart(frames, list(groups.values()), mark in INDEPENDENT_MARKS):
            rank = (sum(map(repeats, groups.values())), len(groups))
            if best is None or rank < best[0]:
                best = (rank, mark, groups)
    if best is None:
        return [(frames, "")]
    _, mark, groups = best
    found = []
    for number, value in enumerate(sorted(groups, key=lambda text: (len(text), text)), 1):
        said = f"{number} of {len(groups)}" if mark.endswith(PRIVATE) else _shown(mark, value)
        named = f"{mark} {said}"
        found += [(stack, ", ".join(filter(None, [named, more]))) for stack, more in _by_marks(groups[value])]
    return found


def _shown(mark: str, value: str) -> str:
    """The value of a mark in messages: private unless it is numbers or terms that DICOM defines."""
    words = re.sub(r"[][',]", " ", value).split()
    is_defined = all(word in IMAGE_TYPES or re.fullmatch(r"[-+]?\d+(\.\d+)?", word) for word in words)
    return (value if is_defined and mark not in FREE_TEXT else private(value)) if value else "not given"


def _mark(frame: Frame, mark: str) -> str:
    return str(frame.path.parent) if mark == FOLDER else frame.marks[mark]


def _are_apart(frames: Sequence[Frame], groups: Sequence[Sequence[Frame]], alternating: bool) -> bool:
    """Whether groups of slices are scans of their own: they share places or, if that counts, alternate."""
    if 2 * len(groups) > len(frames):  # nearly every slice has a value of its own
        return False
    if sum(map(repeats, groups)) < repeats(frames):
        return True
    ranges = [(heights(group, frames[0])[0], heights(group, frames[0])[-1]) for group in groups if len(group) > 1]
    return alternating and any(
        min(a[1], b[1]) - max(a[0], b[0]) > 0.5 * min(a[1] - a[0], b[1] - b[0])
        for number, a in enumerate(ranges)
        for b in ranges[:number]
    )


def heights(frames: Sequence[Frame], like: Frame | None = None) -> np.ndarray:
    """(n,) mm of slices along the normal of the first, or of ``like``."""
    return np.array([frame.position for frame in frames]) @ (like or frames[0]).normal


def repeats(frames: Sequence[Frame]) -> int:
    """Number of slices, in order of their heights, that lie at the same place as the one before."""
    return int((np.diff(heights(frames)) < SAME_PLACE).sum())


# Copies


def _without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], int]:
    """The slices without copies, and the number of copies."""
    kept: dict[tuple, list[Frame]] = defaultdict(list)
    for frame in frames:
        place = tuple(np.rint(frame.position / SAME_PLACE).astype(int))
        alike = kept[(place, *frame.marks.values())]
        if not any(_is_copy(frame, other) for other in alike):
            alike.append(frame)
    unique = [frame for alike in kept.values() for frame in alike]
    return unique, len(frames) - len(unique)


def _is_copy(a: Frame, b: Frame) -> bool:
    """Whether two slices at one place are the same; in different folders they need one SOPInstanceUID too."""
    if not _have_one_shape(a, b) or (a.path.parent != b.path.parent and a.instance != b.instance):
        return False
    try:
        return np.array_equal(read_frame(a), read_frame(b))
    except DataError:  # reading the scan names the damaged one
        return False
