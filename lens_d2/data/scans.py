"""Finding scans as users have them: one file or folder, or a folder full of either."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from ..io.dicom_header import looks_like_dicom
from ..io.errors import DataError
from ..io.files import MAX_NAME, visible_files, visible_folders
from ..io.report_format import TABLE_FILE, is_report
from .sources.dicom_file import DicomFile, Kind
from .sources.dicom_folder import no_ct
from .sources.dicom_series import DicomIndex, Part, find_parts, is_packed, read_dicom_files, read_index
from .sources.png_folder import fault_of_picture, numbered_pictures

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".hdr.gz", ".hdr", ".mhd", ".mha", ".nrrd", ".nhdr")
NUMBERED = "scan_{:03d}"
VOLUME, PNG, DICOM, PICTURES = "volume file", "PNG slices", "DICOM series", "pictures that are no slices"


@dataclass(frozen=True)
class Scan:
    """One scan, or something that cannot be used as one.

    Attributes:
        name: unique among those found together and fit for a file name. It comes from the scan's path if
            identifiers may be kept, else from its number in the order of the paths, as files are often named after
            patients.
        record: for :func:`lens_d2.data.volume.read_volume` and the cache.
        kind: VOLUME, PNG, DICOM, or PICTURES for what is no scan.
        fault: why it cannot be used, if that is known before it is read.
        number: in the order of the paths, from 1; after a resumption it may be another.
        warnings: what its record does not tell when it is read, such as other parts of its series elsewhere.
    """

    name: str
    record: dict
    kind: str
    fault: DataError | None = None
    number: int = 1
    warnings: tuple[str, ...] = ()

    def numbered(self, number: int) -> Scan:
        """The scan with another number, and its name from that."""
        return replace(self, number=number, name=NUMBERED.format(number))

    @property
    def is_scan(self) -> bool:
        """Whether it is a scan, sound or not."""
        return self.kind != PICTURES


class SeveralSeries(DataError):
    """A DICOM folder with several series, or a series with several parts, when none of them was picked.

    Attributes:
        lines: a line for each: its UID, number of images, description.
    """

    def __init__(self, path: str | PathLike, lines: Sequence[str]):
        """
        Args:
            path: the folder.
            lines: the attribute.
        """
        self.lines = list(lines)
        super().__init__(path, f"holds {len(self.lines)} DICOM series, pick one by its UID")

    def __reduce__(self):
        return type(self), (self.path, self.lines)


@dataclass(frozen=True)
class _Find:
    """Something at a path that may be a scan: what is needed to read it, or why it cannot be read."""

    place: Path
    kind: str
    series_uid: str | None = None
    part: Part | None = None
    fault: DataError | None = None
    warnings: tuple[str, ...] = ()


def find_scans(
    path: str | PathLike,
    *,
    spacing: Sequence[float] | None = None,
    series_uid: str | None = None,
    fill_gaps: bool = False,
    keep_ids: bool = False,
    leave_out: str | PathLike | None = None,
) -> list[Scan]:
    """Find the scans at a path, in the order of their paths, and whatever looks like one but cannot be used.

    A DICOM series is one scan, in however many folders its files are; if its slices do not belong together (two
    acquisitions, phases or shapes), each part is one. Images of other kinds in a folder with CT are ignored.

    Args:
        path: a volume file, a DICOM file of many frames, a folder of DICOM files or of PNG slices, or a folder
            that holds such things at any depth.
        spacing: x, y, z mm of PNG slices, see :class:`lens_d2.data.sources.PngFolder`.
        series_uid: picks a DICOM series or one of its parts (``UID:1``) from all scans.
        fill_gaps: interpolate one or two missing slices of a DICOM series.
        keep_ids: whether scans may be named after their files and folders.
        leave_out: a folder that is not searched.

    Raises:
        DataError: the path does not exist, or holds nothing that could be a scan, or holds no PNG slices although
            ``spacing`` is given.
        SeveralSeries: ``path`` is one DICOM folder with several series or parts, or the series picked has several.
    """
    path = Path(path)
    if not path.is_file() and not path.is_dir():
        raise DataError(path, "neither a file nor a folder" if path.exists() else "no such file or folder")
    finds = _search(path, leave_out)
    if series_uid is not None:
        finds = _picked(path, finds, series_uid)
    if len(finds) > 1 and all(find.part is not None and find.place == path for find in finds):
        raise SeveralSeries(path, [str(find.part) for find in finds])
    if all(find.kind == PICTURES for find in finds):
        pictures = [f"; {find.fault.fault}" for find in finds[:1] if find.fault is not None]
        packed = "; unpack its files" if path.is_dir() and any(map(is_packed, visible_files(path))) else ""
        raise DataError(path, "holds no volume file, DICOM series or PNG slices" + "".join(pictures) + packed)
    if spacing is not None and not any(find.kind == PNG for find in finds):
        raise DataError(path, "a spacing is given, which is for PNG slices: other scans have their own")
    if spacing is None:
        fault = DataError(path, "PNG slices carry no spacing: give it in mm (x, y, z)")
        finds = [replace(find, fault=fault) if find.kind == PNG else find for find in finds]

    scans: list[Scan] = []
    for find in finds:
        number = len(scans) + 1
        name = _name(find.place, path) if keep_ids else NUMBERED.format(number)
        record: dict = {"file_name": os.path.abspath(find.place), "volume": "scan"}
        if find.kind == PNG and spacing is not None:
            record["spacing"] = [float(step) for step in spacing]
        if find.series_uid is not None:
            record["series_uid"] = find.series_uid
        if find.kind == DICOM and fill_gaps:
            record["fill_gaps"] = True
        taken = {TABLE_FILE, *(each.name for each in scans)}
        scans.append(Scan(_unique(name, taken), record, find.kind, find.fault, number, find.warnings))
    return scans


def public_names(scan: Scan) -> Callable[[str], str]:
    """Replace names of files and text from them in messages, as those may be a patient's.

    The scan gets its own name, its files and folders their number in the order of their names, anything else an
    ellipsis. White space in names does not count.
    """
    place = Path(scan.record["file_name"])
    called = {place.name: scan.name, _stem(place): scan.name}
    if place.is_dir():
        files = visible_files(place)
        folders = sorted({folder for file in files for folder in file.parents if place in folder.parents})
        for kind, paths in (("folder", folders), ("file", files)):
            for number, path in enumerate(paths, 1):
                called.setdefault(path.name, f"{kind} {number}")
    joined = {"".join(name.split()): shown for name, shown in called.items()}
    return lambda name: joined.get("".join(name.split()), "...")


# Searching


def _search(root: Path, leave_out: str | PathLike | None) -> list[_Find]:
    """Everything at a path that may be a scan: the files of a folder, then its folders."""
    if root.is_file():
        return _frames_of_file(root) if looks_like_dicom(root) else [_Find(root, VOLUME)]
    finds: list[_Find] = []
    dicom: list[DicomFile] = []
    visited: list[Path] = []

    def fail(fault: DataError) -> None:
        visited.append(Path(fault.path))
        finds.append(_Find(visited[-1], DICOM, fault=fault))

    for place, files in visible_folders(root, leave_out, fail):
        visited.append(place)
        volumes = [file for file in files if file.name.lower().endswith(VOLUME_SUFFIXES)]
        finds += [_Find(file, VOLUME) for file in _without_own_outputs(volumes, files)]
        here = read_dicom_files(file for file in files if file not in volumes)
        dicom += here
        if not any(file.kind == Kind.CT for file in here):
            finds += _picture_finds(place)
    finds += _dicom_finds(dicom)
    rank = {place: number for number, place in enumerate(visited)}
    return sorted(finds, key=lambda find: (rank.get(find.place, rank.get(find.place.parent)), find.kind != VOLUME))


def _without_own_outputs(volumes: Sequence[Path], files: Sequence[Path]) -> list[Path]:
    """Volume files without the label maps of earlier runs: those beside a report of the same name."""
    if not volumes:
        return []
    reports = {file.stem for file in files if file.suffix.lower() == ".json" and is_report(file)}
    return [file for file in volumes if _stem(file) not in reports]


def _picture_finds(place: Path) -> list[_Find]:
    """The numbered pictures of a folder: slices if any is one by its header."""
    pictures = numbered_pictures(place)
    if not pictures:
        return []
    faults = [fault_of_picture(file) for file in pictures]
    return [_Find(place, PNG) if None in faults else _Find(place, PICTURES, fault=faults[0])]


def _dicom_finds(files: Sequence[DicomFile]) -> list[_Find]:
    """The scans among the DICOM files of a tree, and folders whose files cannot be used."""
    index = find_parts(files)
    finds = [_dicom_find(part, files, index) for part in index.parts]
    covered = {path.parent for part in index.parts for path in part.paths}
    unusable: dict[Path, list[DicomFile]] = defaultdict(list)
    for file in (*index.damaged, *index.others):
        if file.path.parent not in covered:
            unusable[file.path.parent].append(file)
    return finds + [_Find(folder, DICOM, fault=no_ct(folder, members)) for folder, members in unusable.items()]


def _dicom_find(part: Part, files: Sequence[DicomFile], index: DicomIndex) -> _Find:
    """A scan, in the smallest folder from which reading gives exactly its slices."""
    place, uid, warnings = _common_folder(part.paths), part.uid, []
    if part.count > 1:
        series = [file for file in files if file.series == part.series]
        for folder in (_common_folder(part.paths), _common_folder([file.path for file in series])):
            there = find_parts([file for file in series if _is_under(file.path, folder)]).parts
            same = [other for other in there if _slices(other) == _slices(part)]
            if same:
                place, uid = folder, same[0].uid
                warnings = [text for text in part.warnings if text not in same[0].warnings]
                break
    alone = not any(
        other is not part and any(_is_under(path, place) for path in other.paths) for other in index.parts
    )
    return _Find(place, DICOM, None if alone else uid, part=part, warnings=tuple(warnings))


def _common_folder(paths: Iterable[Path]) -> Path:
    return Path(os.path.commonpath({path.parent for path in paths}))


def _is_under(path: Path, folder: Path) -> bool:
    return folder in path.parents


def _slices(part: Part) -> set[tuple[Path, int]]:
    return {(frame.path, frame.number) for frame in part.frames}


def _frames_of_file(file: Path) -> list[_Find]:
    """The scans in a DICOM file of many frames."""
    index = read_index([file])
    if not index.parts:
        return [_Find(file, DICOM, fault=no_ct(file, (*index.damaged, *index.others)))]
    several = len(index.parts) > 1
    return [_Find(file, DICOM, part.uid if several else None, part=part) for part in index.parts]


def _picked(path: Path, finds: Iterable[_Find], uid: str) -> list[_Find]:
    """The find of a DICOM series or part.

    Raises:
        DataError: none has the uid.
        SeveralSeries: the series has several parts.
    """
    found = [find for find in finds if find.part is not None and uid in (find.part.uid, find.part.series)]
    if not found:
        raise DataError(path, f"no DICOM series {uid}")
    if len(found) > 1:
        raise SeveralSeries(path, [str(find.part) for find in found])
    return found


def _name(place: Path, root: Path) -> str:
    """A name for a scan from its path below the folder that was searched, or from the path that was given.

    If it would be longer than MAX_NAME, a digest of the path takes the place of its end.
    """
    path = _stem(place) if place == root else (place.parent / _stem(place)).relative_to(root).as_posix()
    name = re.sub(r"[^\w.-]+", "_", path).strip("._") or "scan"
    if len(name.encode()) <= MAX_NAME:
        return name
    end = "-" + hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return name.encode()[: MAX_NAME - len(end)].decode(errors="ignore") + end


def _stem(place: Path) -> str:
    """The last part of a path, without the suffix of a volume file."""
    suffix = next((s for s in VOLUME_SUFFIXES if place.name.lower().endswith(s)), "") if place.is_file() else ""
    return place.name[: len(place.name) - len(suffix)]


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken."""
    candidates = [name, *(f"{name}_{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)
