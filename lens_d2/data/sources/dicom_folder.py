"""A DICOM series: a folder with one file per slice."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lens_d2.data.sources.source import SOURCE_REGISTRY, Source, sitk_errors, to_int16
from lens_d2.errors import DataError

POSITION, ORIENTATION, PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
INTERVAL_TOLERANCE = 0.1  # of the interval: scanners round positions, a missing slice doubles the step


class _Slice:
    """What one file says of its place.

    Attributes:
        size: columns, rows. spacing: (2,) mm between columns, between rows.
        position: (3,) LPS mm of the first pixel. height: mm along the normal of the slice.
        orientation: (2, 3) unit vectors along a row and down a column.
    """

    def __init__(self, file: Path):
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        with sitk_errors(file, "not a readable DICOM slice"):
            reader.ReadImageInformation()
        rows_first = self._numbers(file, reader, PIXEL_SPACING, 2)
        self.file = file
        self.size = reader.GetSize()[:2]
        self.spacing = rows_first[::-1]
        self.position = self._numbers(file, reader, POSITION, 3)
        self.orientation = self._numbers(file, reader, ORIENTATION, 6).reshape(2, 3)
        self.height = float(self.position @ np.cross(*self.orientation))

    @staticmethod
    def _numbers(file: Path, reader: sitk.ImageFileReader, tag: str, count: int) -> np.ndarray:
        text = reader.GetMetaData(tag) if reader.HasMetaDataKey(tag) else ""
        try:
            return np.array(text.split("\\"), dtype=np.float64).reshape(count)
        except ValueError as error:
            raise DataError(file, f"DICOM element ({tag.replace('|', ',')}) holds no {count} numbers") from error


@SOURCE_REGISTRY.register()
class DicomFolder(Source):
    """The slices of one series, ordered along their normal: upwards for axial ones.

    ``record["series_uid"]`` picks the series where a folder holds several.
    """

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return path.is_dir()

    def files(self) -> list[Path]:
        return sorted(file for file in self.path.iterdir() if file.is_file())

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        slices = self._slices
        first = slices[0]
        for other in slices[1:]:
            if other.size != first.size:
                sizes = [" x ".join(map(str, s.size)) for s in (other, first)]
                raise DataError(other.file, f"{sizes[0]} pixels, but {first.file.name} has {sizes[1]}")
            if not np.allclose(other.orientation, first.orientation, atol=1e-3):
                raise DataError(other.file, f"another orientation than {first.file.name}")
        affine = np.eye(4)
        affine[:3, :2] = first.orientation.T * first.spacing
        affine[:3, 2] = self._step(slices)
        affine[:3, 3] = first.position
        return (*first.size, len(slices)), affine

    def array(self) -> np.ndarray:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(each.file) for each in self._slices])
        with sitk_errors(self.path, "truncated or damaged, the voxels cannot be read"):
            return to_int16(self.path, sitk.GetArrayFromImage(reader.Execute()))

    def slice_files(self) -> list[Path]:
        return [each.file for each in self._slices]

    def _step(self, slices: list[_Slice]) -> np.ndarray:
        """(3,) mm from one slice to the next; DataError where the steps differ."""
        if len(slices) == 1:
            raise DataError(self.path, "a single slice has no slice interval")
        heights = np.array([each.height for each in slices])
        steps = np.diff(heights)
        interval = np.median(steps)
        odd = np.flatnonzero(np.abs(steps - interval) > INTERVAL_TOLERANCE * interval)
        if len(odd) or interval == 0:
            below, above = (slices[i].file.name for i in (odd[0] if len(odd) else 0) + np.array([0, 1]))
            raise DataError(
                self.path,
                f"irregular slice spacing: {steps[odd[0]] if len(odd) else 0:g} mm from {below} to {above}, "
                f"{interval:g} mm elsewhere ({len(odd)} such gaps; missing or repeated slices?)",
            )
        return (slices[-1].position - slices[0].position) / (len(slices) - 1)

    @cached_property
    def _slices(self) -> list[_Slice]:
        with sitk_errors(self.path, "cannot be searched for DICOM series"):
            found = {
                uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(self.path), uid)
                for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(self.path))
            }
        if not found:
            raise DataError(self.path, "holds neither PNG slices nor a DICOM series")
        readable = {Path(name).name for names in found.values() for name in names}
        for file in self.files():
            if file.suffix.lower() == ".dcm" and file.name not in readable:
                raise DataError(file, "not a DICOM file, or a truncated one")
        slices = [_Slice(Path(name)) for name in found[self._pick(found)]]
        return sorted(slices, key=lambda each: each.height)

    def _pick(self, found: dict) -> str:
        uid = self.record.get("series_uid") or (next(iter(found)) if len(found) == 1 else None)
        if uid is None or uid not in found:
            fault = f"{len(found)} DICOM series, name one" if uid is None else f"no DICOM series {uid}"
            raise DataError(
                self.path, f"{fault}: " + ", ".join(f"{u} ({len(n)} slices)" for u, n in found.items())
            )
        return uid
