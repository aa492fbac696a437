"""SimpleITK's GDCM as a plugin of pydicom, for what pydicom's own plugins cannot decode or decode more slowly.

That is lossless JPEG, JPEG of 12 bits and JPEG 2000. A plugin of pydicom is a module with DECODER_DEPENDENCIES,
``is_available`` and a function that decodes a frame.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import SimpleITK as sitk
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders import (
    JPEG2000Decoder,
    JPEG2000LosslessDecoder,
    JPEGExtended12BitDecoder,
    JPEGLosslessDecoder,
    JPEGLosslessSV1Decoder,
)
from pydicom.pixels.decoders.base import DecodeRunner

from .source import sitk_errors

NAME = "simpleitk"
DECODERS = (
    JPEGLosslessDecoder,
    JPEGLosslessSV1Decoder,
    JPEGExtended12BitDecoder,
    JPEG2000LosslessDecoder,
    JPEG2000Decoder,
)
DECODER_DEPENDENCIES = {decoder.UID: ("SimpleITK",) for decoder in DECODERS}


def register() -> None:
    """Add the plugin to pydicom's decoders, once."""
    for decoder in DECODERS:
        if NAME not in decoder.available_plugins:
            decoder.add_plugin(NAME, (__name__, "decode_frame"))


def is_available(syntax: str) -> bool:
    """Whether the plugin decodes a transfer syntax."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode a compressed grey frame to its stored values.

    Raises:
        DataError: the frame is damaged.
    """
    slice_ = Dataset()
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = runner.transfer_syntax
    slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    slice_.Rows, slice_.Columns = runner.rows, runner.columns
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"  # MONOCHROME1 would be inverted
    slice_.BitsAllocated, slice_.BitsStored = runner.bits_allocated, runner.bits_stored
    slice_.HighBit = runner.bits_stored - 1
    slice_.PixelRepresentation = runner.pixel_representation
    slice_.PixelData = encapsulate([src])
    slice_["PixelData"].is_undefined_length = True
    with tempfile.TemporaryDirectory(prefix="lens_d2_") as folder:
        path = Path(folder) / "slice.dcm"
        slice_.save_as(path, enforce_file_format=True)
        with sitk_errors(path, "a frame that cannot be decoded"):
            values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return values.astype(runner.pixel_dtype).tobytes()
