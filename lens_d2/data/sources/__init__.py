"""Readers of the file formats of CT: one module for each, which registers its class.

If several readers accept a path, the one registered last reads it. So SitkFile, which accepts any file, is
imported before all others, and DicomFolder, which accepts any folder, before PngFolder.
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
