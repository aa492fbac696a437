"""Readers of the file formats that CT comes in: one file = one format, registered at its class.

Of the readers that accept a path, the one registered last reads it: SitkFile, which takes any file, stands
before all others, and DicomFolder, which takes any folder, before PngFolder.
"""

from .sitk_file import SitkFile

# isort: split
from .array import ArraySource
from .dicom_folder import DicomFolder
from .metaimage_file import MetaImageFile
from .nifti_file import NiftiFile
from .nrrd_file import NrrdFile
from .png_folder import PngFolder
from .source import SOURCE_KEYS, SOURCE_REGISTRY, Source, open_source

__all__ = [
    "SOURCE_KEYS",
    "SOURCE_REGISTRY",
    "ArraySource",
    "DicomFolder",
    "MetaImageFile",
    "NiftiFile",
    "NrrdFile",
    "PngFolder",
    "SitkFile",
    "Source",
    "open_source",
]
