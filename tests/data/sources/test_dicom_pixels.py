"""Values of DICOM slices: every way of storing them gives the same voxels."""

import warnings

import numpy as np
import pydicom
import pytest
from helpers.dicom_checks import AFFINE, ORDERS, check, fault, files_of, with_gdcm
from helpers.scan_files import write_enhanced, write_series
from pydicom import uid

from lens_d2.data.sources import dicom_pixels
from lens_d2.data.volume import read_volume


@pytest.mark.parametrize("odd", [0, 3, 6])
def test_values_do_not_depend_on_which_slice_comes_first(tmp_path, hu, odd):
    def unsigned(k, data):
        if k == odd:
            data.RescaleIntercept, data.PixelData = 0, hu[k].clip(0).astype(np.uint16).tobytes()

    folder = write_series(tmp_path / "ct", hu, AFFINE, change=unsigned)
    expected = hu.copy()
    expected[odd] = hu[odd].clip(0)
    check(folder, expected, warning="slices differ in rescale slope or intercept: 2 pairs")


def test_rescale_is_rounded_and_saturated(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE, RescaleSlope="12.6", RescaleIntercept="-20000.4")
    expected = np.rint((hu + 1024) * 12.6 - 20000.4).clip(-32768, 32767).astype(np.int16)
    check(folder, expected, warning="not Hounsfield units")


def test_signed_pixels_with_unused_bits(tmp_path, hu):
    def signed(k, data):
        data.PixelRepresentation, data.BitsStored, data.HighBit, data.RescaleIntercept = 1, 12, 11, 0
        data.PixelData = (hu[k].clip(-2048, 2047) & 0xFFF).astype(np.uint16).tobytes()  # no sign in the upper bits

    check(write_series(tmp_path / "ct", hu, AFFINE, change=signed), hu.clip(-2048, 2047))


def test_monochrome1_is_not_inverted(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE, PhotometricInterpretation="MONOCHROME1")
    check(folder, hu, warning="MONOCHROME1")


def padded(hu, value):
    """The voxels with padding in two corners, and as they are to be read."""
    stored, expected = hu.clip(-1000, 2000), hu.clip(-1000, 2000)
    for array, filling in ((stored, value), (expected, -1024)):
        array[:, :3, :2] = array[:, -2:, -1] = filling
    return stored, expected


@pytest.mark.parametrize(
    "elements, value",
    [
        ({"PixelPaddingValue": 4095}, 3071),
        ({"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}, 3071),
        ({"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4000}, 3000),
    ],
)
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_declared_padding_is_air(tmp_path, hu, elements, value, syntax):
    stored, expected = padded(hu, value)
    folder = write_series(tmp_path / "ct", stored, AFFINE, **elements)
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    check(folder, expected)


@pytest.mark.parametrize("representation", ["SS", "US"])
def test_padding_has_the_sign_of_the_pixels(tmp_path, hu, representation):
    """Its own representation may be the other one."""
    stored, expected = padded(hu, -2000)

    def signed(k, data):
        data.PixelRepresentation, data.RescaleIntercept = 1, 1500
        data.PixelData = (stored[k] - 1500 * (stored[k] != -2000)).astype(np.int16).tobytes()
        data.add_new("PixelPaddingValue", representation, -2000 if representation == "SS" else 63536)

    check(write_series(tmp_path / "ct", stored, AFFINE, change=signed), expected)


def test_padding_that_is_air_stays(tmp_path, hu):
    stored, _ = padded(hu, -1000)
    check(write_series(tmp_path / "ct", stored, AFFINE, PixelPaddingValue=24), stored)


def test_padding_that_tissue_has_too(tmp_path, hu):
    stored, expected = padded(hu, 3071)
    stored[:, 5, 5] = expected[:, 5, 5] = 3071
    folder = write_series(tmp_path / "ct", stored, AFFINE, PixelPaddingValue=4095)
    check(folder, expected, warning="declares to be padding lie within the slices: left as they are")


def test_padding_in_frames(tmp_path, hu):
    stored, expected = padded(hu, 3071)
    path = write_enhanced(tmp_path / "ct.dcm", stored, AFFINE, ORDERS["shuffled"], PixelPaddingValue=4095)
    check(path, expected)


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless]
    + [uid.JPEGLSLossless, uid.JPEG2000Lossless],
)
def test_transfer_syntaxes(tmp_path, hu, syntax):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        if syntax == uid.JPEG2000Lossless:  # pydicom has no encoder here
            with_gdcm(file, data, "JPEG2000")
            continue
        if syntax.is_encapsulated:
            data.compress(syntax, generate_instance_uid=False)
        elif syntax == uid.ExplicitVRBigEndian:
            data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(
            file,
            data,
            implicit_vr=syntax.is_implicit_VR,
            little_endian=syntax.is_little_endian,
            enforce_file_format=True,
            overwrite=True,
        )
    assert pydicom.dcmread(next(folder.iterdir())).file_meta.TransferSyntaxUID == syntax
    check(folder, hu)


def test_a_compression_that_nothing_decodes(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.compress(uid.RLELossless)
        data.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
        data.save_as(file)
    assert "its compression, High-Throughput JPEG 2000" in fault(folder)


def test_compressed_frames(tmp_path, hu):
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, ORDERS["shuffled"])
    data = pydicom.dcmread(path)
    data.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    data.save_as(path)
    check(path, hu)


def test_another_threads_warnings_are_not_the_decoders(tmp_path, hu, monkeypatch):
    """Python's filters of warnings are those of all threads."""
    folder, to_hu = write_series(tmp_path / "ct", hu, AFFINE), dicom_pixels._to_hu

    def meanwhile(*args):
        warnings.warn("a file was left open", ResourceWarning, stacklevel=2)
        return to_hu(*args)

    monkeypatch.setattr(dicom_pixels, "_to_hu", meanwhile)
    with pytest.warns(ResourceWarning, match="a file was left open"):
        check(folder, hu)


def test_what_a_decoder_finds_odd_is_warned_of(tmp_path, hu):
    """RLE has no checksum: zeros within a segment decode, to more bytes than a slice has."""
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    for file in files_of(folder):
        data = pydicom.dcmread(file)
        data.compress(uid.RLELossless)
        data.save_as(file)
    file = files_of(folder)[1]
    whole = file.read_bytes()
    file.write_bytes(whole[:-100] + bytes(80) + whole[-20:])
    (warning,) = read_volume(folder).warnings
    assert warning.startswith(
        "stored pixels may be damaged: The decoded RLE segment contains non-conformant padding"
    )
