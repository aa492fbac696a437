"""Lossless JPEG and JPEG 2000, by the GDCM in SimpleITK."""

import pydicom
import pytest
from helpers.dicom_checks import AFFINE, check, with_gdcm
from helpers.scan_files import write_series
from pydicom import uid


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "compressor, syntaxes",
    [("JPEG", (uid.JPEGLossless, uid.JPEGLosslessSV1)), ("JPEG2000", (uid.JPEG2000Lossless,))],
)
def test_lossless_jpeg(tmp_path, hu, compressor, syntaxes, signed, photometric):
    def as_signed(k, data):
        if signed:
            data.PixelRepresentation, data.RescaleIntercept, data.PixelData = 1, 0, hu[k].tobytes()

    folder = write_series(tmp_path / "ct", hu, AFFINE, change=as_signed, PhotometricInterpretation=photometric)
    for file in folder.iterdir():
        with_gdcm(file, pydicom.dcmread(file), compressor)
    assert pydicom.dcmread(file).file_meta.TransferSyntaxUID in syntaxes
    check(folder, hu, warning="MONOCHROME1" if photometric == "MONOCHROME1" else None)
