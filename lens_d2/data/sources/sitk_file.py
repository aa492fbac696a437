"""Volumes in one file: MetaImage, NRRD and the other formats that SimpleITK reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lens_d2.data.sources.source import SOURCE_REGISTRY, Source, affine_of, sitk_errors, to_int16
from lens_d2.errors import DataError

# What names the file with the voxels in a header, and what stands before its value.
DETACHED = {".mhd": ("elementdatafile", "="), ".nhdr": ("data file", ":")}


@SOURCE_REGISTRY.register()
class SitkFile(Source):
    """A file for SimpleITK, with a detached data file or without."""

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return path.is_file()

    def files(self) -> list[Path]:
        data = _detached_data(self.path)
        if data is None:
            return [self.path]
        if not data.is_file():
            raise DataError(self.path, f"its data file {data.name} is missing")
        return [self.path, data]

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        reader = self._reader()
        if reader.GetDimension() != 3:
            raise DataError(self.path, f"{reader.GetDimension()} dimensions where a volume has 3")
        if reader.GetNumberOfComponents() != 1:
            raise DataError(self.path, f"{reader.GetNumberOfComponents()} values per voxel where CT has 1")
        return reader.GetSize(), affine_of(reader.GetSpacing(), reader.GetDirection(), reader.GetOrigin())

    def array(self) -> np.ndarray:
        self.files()  # are they all there?
        reader = self._reader()
        with sitk_errors(self.path, "truncated or damaged, the voxels cannot be read"):
            return to_int16(self.path, sitk.GetArrayFromImage(reader.Execute()))

    def _reader(self) -> sitk.ImageFileReader:
        _refuse_data_elsewhere(self.path)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(self.path))
        with sitk_errors(self.path, "not a readable volume"):
            reader.ReadImageInformation()
        return reader


def _refuse_data_elsewhere(path: Path) -> None:
    """DataError where a header names a file of voxels that is not in its own folder or below it."""
    if path.suffix.lower() not in DETACHED:
        return
    key, sign = DETACHED[path.suffix.lower()]
    for line in path.read_text("latin-1").splitlines():
        name, separated, value = line.partition(sign)
        if separated and name.strip().lower() != key:
            continue
        file = Path((value if separated else name).strip())  # lines without a sign list several files
        if file.is_absolute() or ".." in file.parts:
            raise DataError(path, "its data file lies outside of its folder")


def _detached_data(path: Path) -> Path | None:
    """The file with the voxels of a MetaImage (.mhd) or NRRD (.nhdr) header, where it is one other file."""
    if path.suffix.lower() not in DETACHED:
        return None
    key, sign = DETACHED[path.suffix.lower()]
    for line in path.read_text("latin-1").splitlines():
        name, _, value = line.partition(sign)
        if name.strip().lower() == key and value.strip().upper() not in ("LOCAL", "LIST"):
            return path.parent / value.strip()
    return None
