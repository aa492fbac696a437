"""NIfTI, version 1 and 2, of either byte order: one file, compressed or not, or a pair of header and voxels."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...io.errors import DataError, private
from ...structures.geometry import displacement
from .source import SOURCE_REGISTRY, Source
from .streams import inflated, is_gzip, read_voxels, skipped, stored

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

HEADER_LENGTHS = (348, 540)  # of NIfTI-1 and NIfTI-2, with which a file begins
NAME = re.compile(r"(?P<stem>.+)\.(?P<kind>nii|hdr|img)(?:\.gz)?", re.IGNORECASE | re.DOTALL)
UNITS = {0: "", 1: "m", 2: "mm", 3: "um"}  # by xyzt_units
LENGTH_UNITS = 7  # the bits of xyzt_units with the unit of lengths
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Tolerated distance between qform and sform at the corner of the volume where they differ most: in mm, or as a
# part of the smallest voxel edge if that is more. The quaternion of a half turn is exact to some tenths of a
# millimetre there.
FORM_TOLERANCE = 0.5
SPACING_TOLERANCE = 0.01  # part of the spacing; the same number stored twice differs by rounding only


@SOURCE_REGISTRY.register()
class NiftiFile(Source):
    """``.nii``, ``.nii.gz``, and ``.hdr`` with ``.img``.

    The voxels' place is that of the sform if its code is positive, else that of the qform if its code is, else
    unknown (the axes are then taken for left, back and head). If a header contradicts itself, a warning says so.
    """

    VERSION = 3

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Whether the file is named as NIfTI."""
        return path.is_file() and NAME.fullmatch(path.name) is not None

    def files(self) -> list[Path]:
        """The file of the header and that of the voxels, if it is another."""
        return list(dict.fromkeys([self._file_of("hdr"), self._file_of("img")]))

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size and affine; DataError unless there are three dimensions."""
        return self._size, self._affine()

    def array(self) -> np.ndarray:
        """(k, j, i) int16 voxels in HU, with the header's slope and intercept applied."""
        from nibabel.spatialimages import HeaderDataError

        header = self._header
        dtype = header.get_data_dtype()
        file = self._file_of("img")
        try:
            slope, intercept = header.get_slope_inter()
        except HeaderDataError as error:
            raise DataError(self.path, f"its slope and intercept make no sense ({error})") from error
        if np.isinf(header["scl_slope"]):
            self.warn(f"its header gives a slope of {header['scl_slope']:g} (scl_slope), which is not applied")
        chunks = _chunks(file, self._offset)
        return read_voxels(
            self.path, chunks, dtype, self._size, *((1, 0) if slope is None else (slope, intercept))
        )

    @property
    def _is_single(self) -> bool:
        return self._file_of("hdr") == self._file_of("img")

    def _file_of(self, kind: str) -> Path:
        """The file with the header ("hdr") or the voxels ("img")."""
        match = NAME.fullmatch(self.path.name)
        assert match is not None
        if match["kind"].lower() in ("nii", kind):
            return self.path
        for file in sorted(self.path.parent.glob(f"{_literal(match['stem'])}.*")):
            other = NAME.fullmatch(file.name)
            if other and other["stem"] == match["stem"] and other["kind"].lower() == kind:
                return file
        raise DataError(
            self.path, f"its {'header' if kind == 'hdr' else 'voxels'} {private(match['stem'])}.{kind} is missing"
        )

    @cached_property
    def _header(self) -> Nifti1Header:
        """The header, each field of which makes sense."""
        from nibabel import nifti1, nifti2

        block = _first_bytes(self._file_of("hdr"), max(HEADER_LENGTHS))
        for order in "<>":
            length = int(np.frombuffer(block[:4], order + "i4")[0]) if len(block) >= 4 else 0
            if length in HEADER_LENGTHS and len(block) >= length:
                break
        else:
            raise DataError(self.path, "not a readable volume (truncated or damaged NIfTI header)")
        kinds = {
            (348, True): nifti1.Nifti1Header,
            (348, False): nifti1.Nifti1PairHeader,
            (540, True): nifti2.Nifti2Header,
            (540, False): nifti2.Nifti2PairHeader,
        }
        kind = kinds[length, self._is_single]
        header = kind(block[:length], endianness=order, check=False)
        magic = kind.single_magic if self._is_single else kind.pair_magic
        if bytes(header["magic"]).rstrip(b"\0") != magic.rstrip(b"\0"):
            fault = "a header of Analyze 7.5, which does not say which side is left: convert it to NIfTI"
            raise DataError(self.path, f"no NIfTI header ({fault})" if not self._is_single else "no NIfTI header")
        if header["pixdim"][0] == 0:  # qfac; by the standard, 0 means 1
            header["pixdim"][0] = 1
        self._check(header)
        return header

    def _check(self, header) -> None:
        """DataError if the voxels are not numbers, or the header contradicts itself about their type."""
        from nibabel.nifti1 import data_type_codes
        from nibabel.spatialimages import HeaderDataError

        try:
            dtype = header.get_data_dtype()
        except (HeaderDataError, KeyError) as error:
            raise DataError(self.path, f"voxels of an unknown type ({error})") from error
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            name = data_type_codes.label[int(header["datatype"])]
            raise DataError(self.path, f"voxels of type {name} where CT has one number per voxel")
        if int(header["bitpix"]) != dtype.itemsize * 8:
            raise DataError(self.path, f"damaged header: {int(header['bitpix'])} bits for voxels of {dtype.name}")

    @cached_property
    def _size(self) -> tuple[int, int, int]:
        dimensions, *sizes = (int(number) for number in self._header["dim"])
        if not 1 <= dimensions <= 7:
            raise DataError(self.path, f"damaged header: {dimensions} dimensions")
        sizes = sizes[:dimensions]
        if min(sizes) < 1:
            raise DataError(self.path, f"damaged header: a size of {' x '.join(map(str, sizes))} voxels")
        if dimensions < 3 or max(sizes[3:], default=1) > 1:
            raise DataError(self.path, f"{dimensions} dimensions ({' x '.join(map(str, sizes))}); a volume has 3")
        return sizes[0], sizes[1], sizes[2]

    @cached_property
    def _offset(self) -> int:
        """Bytes before the voxels in their file."""
        stored_offset = float(self._header["vox_offset"])
        least = int(self._header.single_vox_offset) if self._is_single else 0
        if not np.isfinite(stored_offset) or stored_offset % 1 or (stored_offset and stored_offset < least):
            raise DataError(self.path, f"damaged header: the voxels begin at byte {stored_offset:g}")
        return max(int(stored_offset), least)

    def _affine(self) -> np.ndarray:
        """(4, 4) voxel index -> LPS mm; zero or NaN along axes whose spacing is."""
        from nibabel.spatialimages import HeaderDataError

        header, forms = self._header, {}
        for name, read in (("sform", header.get_sform), ("qform", header.get_qform)):
            try:
                form = read(coded=True)[0] if int(header[f"{name}_code"]) > 0 else None
            except (HeaderDataError, ValueError) as error:
                self.warn(f"its {name} makes no sense and is not used ({error})")
                continue
            if form is not None:
                forms[name] = RAS_TO_LPS @ form
        spacing = np.array(header["pixdim"][1:4], dtype=np.float64)
        if not forms:
            self.warn(
                "its header leaves position and orientation unknown (qform and sform code 0): left and right may "
                "be swapped, and places in mm count from the first voxel"
            )
            affine = np.diag([*spacing, 1.0])
        else:
            affine = forms["sform" if "sform" in forms else "qform"]
            self._compare(forms, spacing)
            self.check_axes(affine[:3, :3])
        usable = np.isfinite(spacing) & (spacing != 0)
        affine[:3, :3] *= np.where(usable, 1, spacing)
        unit = int(header["xyzt_units"]) & LENGTH_UNITS
        return self.to_mm(affine, UNITS.get(unit, f"unit {unit}"))

    def _compare(self, forms: dict[str, np.ndarray], spacing: np.ndarray) -> None:
        """Warn if the header gives position or spacing twice, and differently."""
        used = "sform" if "sform" in forms else "qform"
        lengths = np.linalg.norm(forms[used][:3, :3], axis=0)
        if len(forms) == 2:
            apart = displacement(forms["sform"], forms["qform"], self._size)
            if not apart <= max(FORM_TOLERANCE, FORM_TOLERANCE * lengths.min()):
                self.warn(f"its qform and sform place the voxels up to {apart:.3g} mm apart: the sform is used")
        if not np.allclose(lengths, spacing, rtol=SPACING_TOLERANCE, atol=0):
            told = [" x ".join(f"{step:.3g}" for step in steps) for steps in (spacing, lengths)]
            self.warn(f"its header gives the spacing twice, as {told[0]} and as {told[1]} mm: the latter is used")


def _chunks(file: Path, offset: int) -> Iterator[bytes]:
    """The bytes of a file, compressed or not, from the voxels on."""
    if is_gzip(file):
        with open(file, "rb") as stream:
            yield from skipped(inflated(stream), offset)
        return
    with open(file, "rb") as stream:
        stream.seek(offset)
        yield from stored(stream)


def _first_bytes(file: Path, count: int) -> bytes:
    """Up to ``count`` bytes at the start of a file that may be compressed."""
    data = b""
    try:
        for chunk in _chunks(file, 0):
            data += chunk
            if len(data) >= count:
                break
    except EOFError:
        pass  # the header may be whole; that the voxels are not shows when they are read
    except (OSError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not the decompressor's
            raise DataError(file, f"cannot be read: {error.strerror}") from error
        fault = f"not a readable volume (truncated or damaged, cannot be unpacked: {private(error)})"
        raise DataError(file, fault) from error
    return data[:count]


def _literal(text: str) -> str:
    """A glob pattern that matches just this text."""
    return re.sub(r"([*?[])", r"[\1]", text)
