"""Readers of the file formats that CT comes in: one file = one format, registered at its class."""

from lens_d2.data.sources.source import SOURCE_KEYS, SOURCE_REGISTRY, Source, open_source  # isort: skip

# Tried in this order: the last one takes every folder.
from lens_d2.data.sources.png_folder import PngFolder  # isort: skip
from lens_d2.data.sources.sitk_file import SitkFile  # isort: skip
from lens_d2.data.sources.dicom_folder import DicomFolder  # isort: skip

__all__ = ["SOURCE_KEYS", "SOURCE_REGISTRY", "DicomFolder", "PngFolder", "SitkFile", "Source", "open_source"]
