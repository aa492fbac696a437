"""Readers of the file formats that CT comes in: one file = one format, registered at its class.

Of the readers that accept a path, the one registered last reads it: SitkFile, which takes any file, stands
before all others, and DicomFolder, which takes any folder, before PngFolder.
"""

from lens_d2.data.sources.sitk_file import SitkFile

# isort: split
from lens_d2.data.sources.dicom_folder import DicomFolder
from lens_d2.data.sources.metaimage_file import MetaImageFile
from lens_d2.data.sources.nifti_file import NiftiFile
from lens_d2.data.sources.nrrd_file import NrrdFile
from lens_d2.data.sources.png_folder import PngFolder
from lens_d2.data.sources.source import SOURCE_KEYS, SOURCE_REGISTRY, Source, open_source

__all__ = [
    "SOURCE_KEYS",
    "SOURCE_REGISTRY",
    "DicomFolder",
    "MetaImageFile",
    "NiftiFile",
    "NrrdFile",
    "PngFolder",
    "SitkFile",
    "Source",
    "open_source",
]
