"""Headers of DICOM files; a damaged one is a one-line error that reveals nothing about the patient."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING

from .errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PREAMBLE = 132  # bytes: 128 of anything and the letters DICM
FIRST_GROUPS = (0x0002, 0x0008)  # of the first element in a file without preamble
MAX_LENGTH = 256  # bytes of the first element: a number, a character set, an image type


def looks_like_dicom(file: str | PathLike) -> bool:
    """Tell whether a file begins as DICOM files do: with their preamble, or with one of the first elements.

    Raises:
        DataError: it cannot be read.
    """
    if not os.path.isfile(file):  # opening a pipe would wait
        return False
    try:
        with open(file, "rb") as stream:
            head = stream.read(PREAMBLE)
    except OSError as error:
        raise DataError(file, f"cannot be read: {error.strerror}") from None
    return head[128:] == b"DICM" or _begins_with_an_element(head)


def _begins_with_an_element(head: bytes) -> bool:
    if len(head) < 8:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()  # the letters of a value representation
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", head[:8])
        if element < 0x0100 and (group in FIRST_GROUPS if explicit else group == 8 and 0 < length <= MAX_LENGTH):
            return True
    return False


@contextmanager
def dicom_errors(file: str | PathLike) -> Iterator[None]:
    """Turn whatever pydicom raises on damaged bytes into a one-line DataError, and silence its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's quote the elements, the patient's name for instance
            yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(file, f"cannot be read: {error.strerror or 'the file ends too early'}") from None
    except Exception as error:
        raise DataError(file, f"not a readable DICOM file ({type(error).__name__})") from None


def read_dicom_header(file: str | PathLike, keywords: tuple[str, ...] = ()) -> Dataset:
    """Header of a DICOM file with or without preamble, without its pixels.

    Args:
        file: its path.
        keywords: elements that will be used; those that the file has are decoded here.

    Raises:
        DataError: the file is no DICOM file, is damaged, or has an element that cannot be decoded.
    """
    import pydicom

    with dicom_errors(file):
        header = pydicom.dcmread(file, stop_before_pixels=True, force=looks_like_dicom(file))
        for keyword in keywords:
            header.get(keyword)
    return header
