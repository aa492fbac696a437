"""Headers of DICOM files, read so that a damaged one is a one-line error and nothing is told of the patient."""

from __future__ import annotations

import warnings
from os import PathLike

import pydicom
from pydicom.dataset import Dataset

from lens_d2.errors import DataError


def read_dicom_header(file: str | PathLike, keywords: tuple[str, ...] = (), force: bool = False) -> Dataset:
    """The header of a DICOM file, without its pixels.

    Args:
        file: its path.
        keywords: elements that will be used: those that the file has are decoded here.
        force: read a file without DICOM's preamble too.

    Raises:
        DataError: the file is no DICOM file, is damaged, or has an element that cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's quote what stands in the elements, a name, for instance
            header = pydicom.dcmread(file, stop_before_pixels=True, force=force)
            for keyword in keywords:
                header.get(keyword)
    except OSError as error:
        raise DataError(file, f"cannot be read: {error.strerror or 'the file ends too early'}") from None
    except Exception as error:  # on damaged bytes pydicom raises whatever it stumbles over
        raise DataError(file, f"not a readable DICOM file ({type(error).__name__})") from None
    return header
