"""Scans as users have them: one file or folder, or a folder full of either."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import SimpleITK as sitk

from ..errors import DataError
from .dicom_header import read_dicom_header
from .sources.source import sitk_errors

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd", ".nhdr")
DICOM_SUFFIXES = (".dcm", ".ima")
DESCRIPTION = ("Modality", "SeriesDescription")
VOLUME, PNG, DICOM = "volume file", "PNG slices", "DICOM folder"


@dataclass(frozen=True)
class Scan:
    """One scan.

    Attributes:
        name: unique among those found together, fit for a file name: from the scan's path where identifiers may be
            kept; else by its number in the order of the paths, for files and folders are named after patients.
        record: what :func:`lens_d2.data.volume.read_volume` and the cache take.
        kind: VOLUME, PNG or DICOM.
    """

    name: str
    record: dict
    kind: str


class SeveralSeries(DataError):
    """A DICOM folder with more than one series, and none picked.

    Attributes:
        lines: a line for each series: its UID, how many files it has, how it is described.
    """

    def __init__(self, path: str | PathLike, lines: Sequence[str]):
        self.lines = list(lines)
        super().__init__(path, f"holds {len(self.lines)} DICOM series, pick one by its UID")

    def __reduce__(self):
        return type(self), (self.path, self.lines)


def find_scans(
    path: str | PathLike,
    *,
    spacing: Sequence[float] | None = None,
    series_uid: str | None = None,
    keep_ids: bool = False,
    leave_out: str | PathLike | None = None,
) -> list[Scan]:
    """The scans at a path, in the order of their paths.

    Args:
        path: a volume file, a folder of DICOM files or of PNG slices, or a folder that holds such things at any
            depth.
        spacing: x, y, z mm of PNG slices, see :class:`lens_d2.data.sources.PngFolder`.
        series_uid: of a DICOM series; other scans are left out then.
        keep_ids: whether files and folders may give their scans the names.
        leave_out: a folder that is not searched.

    Raises:
        DataError: nothing is there, no scan is found, or PNG slices without ``spacing``.
        SeveralSeries: ``path`` is one DICOM folder with several series, and ``series_uid`` picks none.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(path, "no such file or folder")
    found = [(path, VOLUME)] if path.is_file() else list(_search(path, leave_out))
    if series_uid is not None:
        found = [(place, kind) for place, kind in found if kind == DICOM and series_uid in series_in(place)]
        if not found:
            raise DataError(path, f"no DICOM series {series_uid}")
    if not found:
        raise DataError(path, "holds no volume file, DICOM series or PNG slices")
    if found == [(path, DICOM)] and series_uid is None and len(series_in(path)) > 1:
        raise SeveralSeries(path, describe_series(path))
    if spacing is None and any(kind == PNG for _, kind in found):
        raise DataError(path, "PNG slices carry no spacing: give it in mm (x, y, z)")

    scans: list[Scan] = []
    for place, kind in found:
        name = _name(place, path) if keep_ids else f"scan_{len(scans) + 1:03d}"
        record: dict = {"file_name": os.path.abspath(place), "volume": "scan"}
        if kind == PNG and spacing is not None:
            record["spacing"] = [float(step) for step in spacing]
        if series_uid is not None:
            record["series_uid"] = series_uid
        scans.append(Scan(_unique(name, {each.name for each in scans}), record, kind))
    return scans


def without_names(text: str, scan: Scan) -> str:
    """A message about a scan without the names of its files and folders, which may be a patient's.

    The scan is called by its name here, files of its folder by their number in the order of their names.
    """
    place = Path(scan.record["file_name"])
    text = text.replace(str(place), scan.name)
    called = {place.name: scan.name, _stem(place): scan.name}
    if place.is_dir():
        called |= {name: f"file {number}" for number, name in enumerate(sorted(os.listdir(place)), 1)}
    for name in sorted(called, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", called[name], text)
    return text


def series_in(folder: str | PathLike) -> dict[str, list[str]]:
    """The files of every DICOM series in a folder, by the series' UID."""
    reader = sitk.ImageSeriesReader
    with sitk_errors(Path(folder), "cannot be searched for DICOM series"):
        uids = reader.GetGDCMSeriesIDs(str(folder))
        return {uid: list(reader.GetGDCMSeriesFileNames(str(folder), uid)) for uid in uids}


def describe_series(folder: str | PathLike) -> list[str]:
    """A line for every series in a folder: its UID, how many files, modality and description."""
    lines = []
    for uid, files in series_in(folder).items():
        header = read_dicom_header(files[0], DESCRIPTION, force=True)
        words = [str(header.get(keyword, "")) for keyword in DESCRIPTION]
        lines.append("  ".join([uid, f"{len(files)} files", *filter(None, words)]))
    return lines


def _search(root: Path, leave_out: str | PathLike | None) -> Iterator[tuple[Path, str]]:
    """Every scan under a folder and its kind."""
    left_out = None if leave_out is None else os.path.realpath(leave_out)
    for name, folders, files in os.walk(root):
        place = Path(name)
        folders[:] = sorted(f for f in folders if f[0] != "." and os.path.realpath(place / f) != left_out)
        files = sorted(file for file in files if file[0] != ".")
        for file in files:
            if file.lower().endswith(VOLUME_SUFFIXES):
                yield place / file, VOLUME
        if any(file.lower().endswith(".png") and Path(file).stem.isdigit() for file in files):
            yield place, PNG
        elif any(_is_dicom(place / file) for file in files):
            yield place, DICOM


def _is_dicom(file: Path) -> bool:
    """Whether a file is called a DICOM file or looks like one."""
    if file.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with open(file, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _name(place: Path, root: Path) -> str:
    """A name for a scan from its path below the folder that was searched, or from its own where there is none."""
    path = _stem(place) if place == root else (place.parent / _stem(place)).relative_to(root).as_posix()
    return re.sub(r"[^\w.-]+", "_", path).strip("._") or "scan"


def _stem(place: Path) -> str:
    """The last part of a path, of a volume file without its suffix."""
    suffix = next((s for s in VOLUME_SUFFIXES if place.name.lower().endswith(s)), "") if place.is_file() else ""
    return place.name[: len(place.name) - len(suffix)]


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken."""
    candidates = [name, *(f"{name}_{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)
