"""The values and frames of DICOM files: every way of storing them gives the same voxels."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from helpers.dicom_checks import AFFINE, check, fault, files_of, make_hu
from helpers.scan_files import write_enhanced, write_series
from pydicom import uid

from lens_d2.data.sources import open_source


@pytest.fixture
def hu() -> np.ndarray:
    """(k, j, i) int16."""
    return make_hu()


# Values


def test_a_series(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    check(folder, hu)
    assert open_source({"file_name": folder}).slice_files() == files_of(folder)


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


def without_rescale(*places):
    def change(k, data):
        if k in places:
            del data.RescaleSlope, data.RescaleIntercept

    return change


def test_rescale_missing_everywhere_is_warned_of_and_in_some_slices_refused(tmp_path, hu):
    folder = write_series(tmp_path / "none", hu, AFFINE, change=without_rescale(*range(len(hu))))
    check(folder, hu + 1024, warning="stored values are taken as HU")
    folder = write_series(tmp_path / "some", hu, AFFINE, change=without_rescale(0))
    assert "1 slice is without rescale slope and intercept" in fault(folder)


@pytest.mark.parametrize(
    "elements, words",
    [
        ({"RescaleSlope": 0}, "a rescale slope of 0"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR with 1 values per pixel where a CT slice"),
        ({"BitsStored": None}, "the DICOM header has no BitsStored"),
        ({"HighBit": 11}, "highest bit"),
        ({"PixelSpacing": None}, "(0028,0030) holds no 2 numbers"),
        ({"PixelSpacing": [0, 0.7]}, "the voxel spacing is 0.7 x 0 x 2.5 mm"),
        ({"PixelSpacing": [-0.7, 0.7]}, "pixels of 0.7 x -0.7 mm"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular unit vectors"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "perpendicular unit vectors"),
        ({"ImagePositionPatient": None}, "(0020,0032) holds no 3 numbers"),
    ],
)
def test_headers_that_no_ct_slice_has(tmp_path, hu, elements, words):
    assert words in fault(write_series(tmp_path / "ct", hu, AFFINE, **elements))


def test_units_that_are_not_hu(tmp_path, hu):
    check(write_series(tmp_path / "ct", hu, AFFINE, RescaleType="MGML"), hu, warning="calls the values MGML")


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


def with_gdcm(file, data, compressor):
    """Writes a slice with pixels that SimpleITK has compressed."""
    image = sitk.GetImageFromArray(data.pixel_array)
    path = file.parent.parent / "compressed.dcm"
    sitk.WriteImage(image, str(path), useCompression=True, compressor=compressor)
    compressed = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
    data.PixelData = compressed.PixelData
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.save_as(file, enforce_file_format=True)


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


def test_a_compression_that_nothing_decodes(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.compress(uid.RLELossless)
        data.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
        data.save_as(file)
    assert "its compression, High-Throughput JPEG 2000" in fault(folder)


# Enhanced CT


ORDERS = {
    "up": [0, 1, 2, 3, 4, 5, 6],
    "down": [6, 5, 4, 3, 2, 1, 0],
    "shuffled": [3, 0, 6, 2, 5, 1, 4],
    "interleaved": [0, 2, 4, 6, 1, 3, 5],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_frames_lie_where_they_say(tmp_path, hu, order):
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, order)
    check(path, hu)
    check(tmp_path, hu)
    assert open_source({"file_name": path}).slice_files() == []


def test_frames_with_a_rescale_of_their_own(tmp_path, hu):
    def shifted(k, frame):
        frame.PixelValueTransformationSequence = [pydicom.Dataset()]
        item = frame.PixelValueTransformationSequence[0]
        item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1, -1024 - 10 * k, "HU"

    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, ORDERS["shuffled"], shifted)
    expected = hu - 10 * np.arange(len(hu))[:, None, None].astype(np.int16)
    check(path, expected, warning="slices differ in rescale slope or intercept: 7 pairs")


def test_compressed_frames(tmp_path, hu):
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, ORDERS["shuffled"])
    data = pydicom.dcmread(path)
    data.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    data.save_as(path)
    check(path, hu)


def test_frames_with_a_gap_or_shifted_sideways(tmp_path, hu):
    path = write_enhanced(tmp_path / "gap.dcm", hu, AFFINE, [0, 1, 4, 5, 6])
    assert "7.5 mm from frame 2 of gap.dcm to frame 3 of gap.dcm" in fault(path)

    def aside(k, frame):
        if k == 3:
            frame.PlanePositionSequence[0].ImagePositionPatient[0] += 5

    path = write_enhanced(tmp_path / "aside.dcm", hu, AFFINE, change=aside)
    assert "frame 4 of aside.dcm lies 5 mm off its place" in fault(path)


def test_frames_of_two_stacks_or_phases(tmp_path, hu):
    def in_two(k, frame):
        frame.FrameContentSequence[0].TemporalPositionIndex = 1 + k // 4

    twice = np.concatenate([hu[:4], hu[:3] + 1])
    path = write_enhanced(tmp_path / "ct.dcm", twice, AFFINE, change=in_two)
    data = pydicom.dcmread(path)
    for k in range(4, 7):
        place = data.PerFrameFunctionalGroupsSequence[k].PlanePositionSequence[0]
        place.ImagePositionPatient[2] -= 4 * 2.5
    data.save_as(path)
    series = data.SeriesInstanceUID
    assert f"{series}:2 (3 slices, TemporalPositionIndex 2)" in fault(path)
    check(path, twice[:4], warning="part 1 of 2 of its series: 4 of 7 images", series_uid=f"{series}:1")
    check(path, twice[4:], warning="part 2 of 2", series_uid=f"{series}:2")


def test_frames_that_do_not_say_where_they_lie(tmp_path, hu):
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, PerFrameFunctionalGroupsSequence=[])
    assert "no CT" in fault(path) or "do not say where they lie" in fault(path)
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, NumberOfFrames=6)
    assert "6 frames, but 7 descriptions" in fault(path) or "bytes of pixels" in fault(path)


def test_a_legacy_converted_image_and_one_frame_alone(tmp_path, hu):
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, SOPClassUID=uid.LegacyConvertedEnhancedCTImageStorage)
    check(path, hu)
    assert "one slice of a DICOM series" in fault(write_enhanced(tmp_path / "one.dcm", hu[:1], AFFINE))


def test_a_single_slice_is_no_scan(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    file = files_of(folder)[2]
    assert fault(file) == f"{file}: one slice of a DICOM series: give the folder with all of its slices"
    assert "a single slice has no slice interval" in fault(write_series(tmp_path / "one", hu[:1], AFFINE))
