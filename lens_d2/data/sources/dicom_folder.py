"""A DICOM series: files with one slice each in a folder, or with many frames."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...io.dicom_header import looks_like_dicom
from ...io.errors import DataError, count_of, counted
from ...io.files import visible_files
from .source import SOURCE_REGISTRY, Source

if TYPE_CHECKING:
    from .dicom_file import DicomFile, Frame
    from .dicom_series import Part
    from .dicom_stack import Stack

# Values of RescaleType that DICOM knows; others are free text.
RESCALE_TYPES = {"HU", "HU_MOD", "US", "OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"}
# Terms of ImageType, DICOM's and scanners', of images that are computed from CT slices and mean something else.
COMPUTED = {
    "MAX_IP": "maximum intensity projections",
    "MIP": "maximum intensity projections",
    "MAXIMUM": "maxima of several images",
    "MIN_IP": "minimum intensity projections",
    "MINIP": "minimum intensity projections",
    "MINIMUM": "minima of several images",
    "SUBTRACTION": "differences of two images",
    "STD_DEVIATION": "standard deviations of several images",
    "MAT_SPECIFIC": "the concentration of a material",
    "MAT_FRACTIONAL": "the fraction of a material",
    "EFF_ATOMIC_NUM": "effective atomic numbers",
    "ELECTRON_DENSITY": "electron densities",
}
MAX_LISTED = 5  # series that a message lists


@SOURCE_REGISTRY.register()
class DicomFolder(Source):
    """The slices of one CT series, ordered along their normal: upwards for axial ones.

    The path is a folder, whose files at any depth are judged by their content, or one file with many frames.
    Objects that accompany a series, images of other kinds and scouts are ignored.

    Keys of the record:
        series_uid: the series, if there are several; with ``:1`` behind it, one part of a series that holds
            several acquisitions, phases or shapes of slices.
        fill_gaps: interpolate one or two missing slices instead of refusing the series.
    """

    VERSION = 4

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Whether it is a folder or begins as a DICOM file."""
        return path.is_dir() or looks_like_dicom(path)

    def files(self) -> list[Path]:
        """All visible files at any depth, as any may belong to the series."""
        return visible_files(self.path)

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size and affine; DataError unless the slices make one regular stack."""
        stack = self._stack
        for text in (*self._part.warnings, *stack.warnings, *_oddities(stack.frames)):
            self.warn(text)
        self.check_axes(stack.affine[:3, :3])
        return stack.size, stack.affine

    def array(self) -> np.ndarray:
        """(k, j, i) int16 voxels in HU."""
        from .dicom_pixels import read_frames

        stack = self._stack
        columns, rows, count = stack.size
        volume = np.empty((count, rows, columns), np.int16)
        for members in _by_file(zip(stack.places, stack.frames, strict=True)):
            pictures = read_frames([frame for _, frame in members], self.warn)
            for (place, _), picture in zip(members, pictures, strict=True):
                volume[place] = picture
        for place in stack.missing:
            above = int(np.searchsorted(stack.places, place))
            volume[place] = _between(volume, stack.places[above - 1], place, stack.places[above])
        return volume

    def slice_files(self) -> list[Path]:
        """The file of every slice; empty for frames of one file, and if slices are interpolated."""
        paths = [frame.path for frame in self._stack.frames]
        return paths if len(set(paths)) == self._stack.size[2] else []

    @cached_property
    def _stack(self) -> Stack:
        from .dicom_stack import arrange

        part = self._part
        if part.fault is not None:
            raise part.fault
        if self.path.is_file() and len(part.frames) == 1:
            raise DataError(self.path, "one slice of a DICOM series: give the folder with all of its slices")
        _refuse_mixed_rescale(part.frames)
        return arrange(self.path, part.frames, bool(self.record.get("fill_gaps")))

    @cached_property
    def _part(self) -> Part:
        from .dicom_series import read_index

        index = read_index(self.files())
        if index.damaged:
            fault = index.damaged[0].fault
            assert fault is not None
            raise fault
        if not index.parts:
            raise no_ct(self.path, index.others)
        uid = self.record.get("series_uid")
        parts = index.parts if uid is None else index.pick(uid)
        if not parts:
            raise DataError(self.path, f"no DICOM series {uid}: {_listed(index.parts)}")
        if len(parts) > 1:
            raise DataError(
                self.path, f"{len(parts)} DICOM series or parts of one, name one (--series): {_listed(parts)}"
            )
        return parts[0]


def _listed(parts: Sequence[Part]) -> str:
    """The first MAX_LISTED parts, in a line."""
    texts = [
        f"{part.uid} ({', '.join(filter(None, [counted(len(part.frames), 'slice'), part.told_by]))})"
        for part in parts
    ]
    return ", ".join(
        [*texts[:MAX_LISTED], *([f"{len(texts) - MAX_LISTED} more"] if len(texts) > MAX_LISTED else [])]
    )


def no_ct(path: Path, files: Sequence[DicomFile]) -> DataError:
    """The error of a path without a scan, by what was found instead: damaged files, images of another kind."""
    faults = [file.fault for file in files if file.fault is not None]
    if faults:
        return faults[0]
    if files:
        return DataError(path, f"no CT slices, but {'; '.join(sorted({file.words for file in files}))}")
    return DataError(path, "holds neither PNG slices nor a DICOM series of CT")


def _by_file(frames: Iterable[tuple[int, Frame]]) -> list[list[tuple[int, Frame]]]:
    """Places and slices grouped by file, in the order of the file's frames."""
    files: dict[Path, list[tuple[int, Frame]]] = defaultdict(list)
    for place, frame in frames:
        files[frame.path].append((place, frame))
    return [sorted(members, key=lambda member: member[1].number) for members in files.values()]


def _between(volume: np.ndarray, below: int, place: int, above: int) -> np.ndarray:
    """(rows, columns) int16 slice interpolated linearly between two others of a volume."""
    weight = (place - below) / (above - below)
    return np.rint((1 - weight) * volume[below] + weight * volume[above].astype(np.float64)).astype(np.int16)


def _refuse_mixed_rescale(frames: Iterable[Frame]) -> None:
    without = [frame for frame in frames if frame.rescale is None]
    if without and len(without) < len(list(frames)):
        raise DataError(without[0].path, f"{count_of(len(without), 'slice')} without rescale slope and intercept")


def _oddities(frames: Iterable[Frame]) -> list[str]:
    """Oddities of how the values of slices are stored, a line each."""
    frames = list(frames)
    rescales = {frame.rescale for frame in frames}
    units = {frame.units for frame in frames} - {"", "HU"}
    named = sorted({each if each in RESCALE_TYPES else "other units" for each in units})
    terms = {term for frame in frames for term in re.findall(r"\w+", frame.marks["ImageType"])}
    computed = sorted(f"{COMPUTED[term]} (ImageType {term})" for term in terms & COMPUTED.keys())
    storages = {
        tuple(frame.pixels.options.get(key) for key in ("bits_stored", "pixel_representation")) for frame in frames
    }
    inverted = any(frame.pixels.options["photometric_interpretation"] == "MONOCHROME1" for frame in frames)
    return [
        text
        for applies, text in (
            (rescales == {None}, "the header has no rescale slope and intercept: stored values are taken as HU"),
            (
                len(rescales) > 1,
                f"slices differ in rescale slope or intercept: {len(rescales)} pairs, each applied to its own",
            ),
            (len(storages) > 1, "slices differ in how their pixels are stored (bits or sign)"),
            (bool(units), f"the header calls the values {', '.join(named)} where HU belong"),
            (bool(computed), f"the header says that these are no CT slices, but {', '.join(computed)}"),
            (inverted, "stored for inverted display (MONOCHROME1): the values are taken as they are"),
        )
        if applies
    ]
