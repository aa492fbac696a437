"""Volume files of any other format that SimpleITK reads, in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ...io.errors import DataError, private
from .source import SOURCE_REGISTRY, Source, affine_of, itk_reason
from .streams import read_voxels, stored

READER = Path(__file__).with_name("sitk_child.py")
FAILED = 3  # its exit status when it says what is wrong with the file
TIMEOUT = 300.0  # seconds for one file; the largest scans take a few
ORIENTED = ("HDF5", "MINC", "Bruker2dseq")  # formats that always store an orientation
PICTURES = ("TIFF", "LSM", "PNG", "JPEG", "JPEG2000", "BMP")  # their headers have no third axis
HEADER_LIMIT = 1 << 16  # bytes of the line with the geometry


def _reason(told: str) -> str:
    """The reason that SimpleITK gave, private as it may quote the file, or that no format fits."""
    if "Unable to determine ImageIO reader" in told:
        return "in no format that is read, or damaged; archives have to be unpacked"
    return private(itk_reason(told))


@SOURCE_REGISTRY.register()
class SitkFile(Source):
    """A file that no other reader accepts; warns that its voxels cannot be checked for damage."""

    VERSION = 2
    bytes_per_voxel = 2 + 8  # the other process holds the file's own type, of at most 8 bytes

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Whether it is a file."""
        return path.is_file()

    def files(self) -> list[Path]:
        """The file."""
        return [self.path]

    def header(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size and affine; DataError unless the format has three dimensions, and one value per voxel."""
        header, _ = self._read(voxels=False)
        if header.get("format") in PICTURES:
            fault = f"{header['format']} tells no slice interval, position or orientation"
            raise DataError(self.path, f"{fault}: convert the scan to NIfTI, NRRD or MetaImage")
        if len(header["size"]) != 3:
            raise DataError(self.path, f"{len(header['size'])} dimensions where a volume has 3")
        if header["components"] != 1:
            raise DataError(self.path, f"{header['components']} values per voxel where CT has 1")
        if header.get("format") not in ORIENTED and np.array_equal(header["direction"], np.eye(3).ravel()):
            known = f"its format ({header.get('format')}) leaves the orientation unknown"
            self.warn(f"{known}: left and right may be swapped")
        i, j, k = header["size"]
        return (i, j, k), affine_of(
            self.path, *(np.array(header[key]) for key in ("spacing", "direction", "origin"))
        )

    def array(self) -> np.ndarray:
        """(k, j, i) int16 voxels in HU."""
        self.warn(
            "a format whose voxels cannot be checked for damage (those of NIfTI, MetaImage, NRRD, DICOM can)"
        )
        return self._read(voxels=True)[1]

    def _read(self, voxels: bool) -> tuple[dict, np.ndarray | None]:
        """Start the reading process and take the header and, if asked for, the (k, j, i) int16 voxels from it.

        Raises:
            DataError: that process dies, finds fault with the file, or takes longer than TIMEOUT.
        """
        command = [sys.executable, "-P", str(READER), str(self.path.absolute()), *([] if voxels else ["--header"])]
        header, array = {}, None
        fault: DataError | None = None
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
            ) as child,
        ):
            assert child.stdout is not None
            alarm = threading.Timer(TIMEOUT, child.kill)
            alarm.daemon = True
            alarm.start()
            try:
                header = json.loads(child.stdout.readline(HEADER_LIMIT) or "{}")
                if voxels and header:
                    array = read_voxels(
                        self.path, stored(cast(BinaryIO, child.stdout)), header["dtype"], header["size"]
                    )
            except DataError as error:
                fault = error
            except ValueError:  # it died while it wrote the header
                header, fault = {}, DataError(self.path, "damaged: its reader tells no header")
            child.stdout.close()
            status = child.wait()
            in_time = alarm.is_alive()
            alarm.cancel()
            complaints.seek(0)
            told = complaints.read().decode(errors="replace")
        if not in_time:
            raise DataError(self.path, f"its reader has not come to an end within {TIMEOUT:g} s")
        if status < 0:
            name = signal.strsignal(-status) or f"signal {-status}"
            raise DataError(self.path, f"damaged: its reader ended with a {name.lower()}")
        if status == FAILED:
            raise DataError(self.path, f"not a readable volume ({_reason(told)})")
        if fault is not None:
            raise fault
        if status or not header:
            raise DataError(
                self.path, f"its reader failed ({private((told.strip() or str(status)).splitlines()[-1])})"
            )
        return header, array
