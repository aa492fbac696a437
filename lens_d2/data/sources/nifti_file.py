"""NIfTI files, guarded where SimpleITK silently fills in what a file lacks."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from lens_d2.data.sources.sitk_file import SitkFile
from lens_d2.data.sources.source import SOURCE_REGISTRY
from lens_d2.errors import DataError

NAMES = ("dim", "datatype", "bits", "pixdim", "offset")
# By the number with which a file starts, the length of its header: version 1 and 2 of the format.
HEADERS = {
    348: np.dtype({"names": NAMES, "formats": ["8i2", "i2", "i2", "8f4", "f4"], "offsets": [40, 70, 72, 76, 108]}),
    540: np.dtype(
        {"names": NAMES, "formats": ["8i8", "i2", "i2", "8f8", "i8"], "offsets": [16, 12, 14, 104, 168]}
    ),
}
FLOATS = {16: "f4", 64: "f8"}  # by NIfTI's number of the data type


@SOURCE_REGISTRY.register()
class NiftiFile(SitkFile):
    """``.nii`` and ``.nii.gz``. SimpleITK takes a spacing of 0 or NaN for 1, and cut-off or NaN voxels for 0."""

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return path.is_file() and path.name.endswith((".nii", ".nii.gz"))

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        size, affine = super().header()
        stored = _header(self.path, _unpacked(self.path, max(HEADERS)))["pixdim"][1:4]
        usable = np.isfinite(stored) & (stored != 0)
        affine[:3, :3] *= np.where(usable, 1, stored)
        return size, affine

    def array(self) -> np.ndarray:
        data = _unpacked(self.path)
        header = _header(self.path, data)
        offset, count = int(header["offset"]), int(np.prod(header["dim"][1 : header["dim"][0] + 1]))
        wanted = offset + count * int(header["bits"]) // 8
        if len(data) < wanted:
            raise DataError(self.path, f"truncated: {len(data)} bytes of {wanted}")
        if int(header["datatype"]) in FLOATS:
            dtype = np.dtype(FLOATS[int(header["datatype"])]).newbyteorder(header.dtype["dim"].base.byteorder)
            not_numbers = np.isnan(np.frombuffer(data, dtype, count, offset)).sum()
            if not_numbers:
                raise DataError(self.path, f"{not_numbers} voxels are not a number (NaN)")
        return super().array()


def _header(path: Path, data: bytes) -> np.ndarray:
    """The fields NAMES of a header, of either version and byte order."""
    for order in "<>":
        length = int(np.frombuffer(data[:4], order + "i4")[0]) if len(data) >= 4 else 0
        if length in HEADERS and len(data) >= length:
            return np.frombuffer(data, HEADERS[length].newbyteorder(order), 1)[0]
    raise DataError(path, "truncated or damaged NIfTI header")


def _unpacked(path: Path, count: int = -1) -> bytes:
    """The first ``count`` bytes of a file that may be compressed; all without it."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            return file.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(path, f"truncated or damaged ({error})") from error
