"""DICOM files one by one: headers, frames, damage."""

import io

import numpy as np
import pydicom
import pytest
from helpers.dicom_checks import AFFINE, ORDERS, check, fault, files_of
from helpers.scan_files import write_enhanced, write_series
from pydicom import uid
from pydicom.filewriter import write_file_meta_info

from lens_d2.data.sources import open_source
from lens_d2.data.volume import read_volume
from lens_d2.io.errors import DataError


@pytest.mark.parametrize(
    "elements, words",
    [
        ({"RescaleSlope": 0}, "a rescale slope of 0"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR with 1 values per pixel where a CT slice"),
        ({"RescaleSlope": None}, "(0028,1053) holds no number (RescaleSlope)"),
        ({"BitsStored": None}, "the DICOM header has no BitsStored"),
        ({"HighBit": 11}, "highest bit"),
        ({"PixelSpacing": None}, "(0028,0030) holds no 2 numbers"),
        ({"PixelSpacing": 0.8}, "(0028,0030) holds no 2 numbers"),
        ({"PixelSpacing": [0, 0.7]}, "the voxel spacing is 0.7 x 0 x 2.5 mm"),
        ({"PixelSpacing": [-0.7, 0.7]}, "pixels of 0.7 x -0.7 mm"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular unit vectors"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "perpendicular unit vectors"),
        ({"ImagePositionPatient": None}, "(0020,0032) holds no 3 numbers"),
    ],
)
def test_headers_that_no_ct_slice_has(tmp_path, hu, elements, words):
    assert words in fault(write_series(tmp_path / "ct", hu, AFFINE, **elements))


@pytest.mark.parametrize(
    ("elements", "shown"),
    [
        ({"PhotometricInterpretation": "DOE^JOHN"}, "... with 1 values per pixel"),
        ({"SOPClassUID": "1.2.DOE", "Modality": "MR"}, "no CT slices, but ..., modality MR"),
    ],
)
def test_text_that_dicom_does_not_define_is_private(tmp_path, hu, elements, shown):
    folder = write_series(tmp_path / "ct", hu, AFFINE, **elements)
    with pytest.raises(DataError) as error:
        read_volume(folder)
    assert error.value.without_private(lambda text: "...").startswith(shown)


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


def test_frames_that_do_not_say_where_they_lie(tmp_path, hu):
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, PerFrameFunctionalGroupsSequence=[])
    assert "no CT" in fault(path) or "do not say where they lie" in fault(path)
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, NumberOfFrames=6)
    assert "6 frames, but 7 descriptions" in fault(path) or "bytes of pixels" in fault(path)


def test_a_legacy_converted_image_and_one_frame_alone(tmp_path, hu):
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE, SOPClassUID=uid.LegacyConvertedEnhancedCTImageStorage)
    check(path, hu)
    assert "one slice of a DICOM series" in fault(write_enhanced(tmp_path / "one.dcm", hu[:1], AFFINE))


@pytest.mark.parametrize("implicit", [True, False])
def test_slices_without_preamble(tmp_path, hu, implicit):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    for number, file in enumerate(files_of(folder)):
        data = pydicom.dcmread(file)
        del data.file_meta, data.preamble
        pydicom.dcmwrite(folder / f"{number}", data, implicit_vr=implicit, little_endian=True)
        file.unlink()
    check(folder, hu)


def test_headers_that_say_another_encoding(tmp_path, hu):
    """Slices with implicit value representations whose transfer syntax says that they are explicit."""
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    for file in folder.iterdir():
        data, written = pydicom.dcmread(file), io.BytesIO()
        written.write(bytes(128) + b"DICM")
        write_file_meta_info(written, data.file_meta)
        del data.file_meta, data.preamble
        pydicom.dcmwrite(written, data, implicit_vr=True, little_endian=True)
        file.write_bytes(written.getvalue())
    check(folder, hu)


@pytest.mark.parametrize("name", ["IM{}", "IM{}.dcm", "IM{}.IMA", "1.2.840.{}"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-20],  # in the pixels
        lambda whole: whole[: len(whole) - 198],  # before them
        lambda whole: whole[:300],
        lambda whole: whole[:140],
        lambda whole: whole[:60],
        lambda whole: b"\0" * 400 + whole[400:],
        lambda whole: b"",
    ],
    ids=["pixels", "no pixels", "header", "meta", "preamble", "overwritten", "empty"],
)
def test_a_damaged_slice_is_named_whatever_it_is_called(tmp_path, hu, name, damage):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    for number, file in enumerate(files_of(folder)):
        file.rename(folder / name.format(number))
    last = folder / name.format(len(hu) - 1)
    last.write_bytes(damage(last.read_bytes()))
    assert fault(folder).startswith(f"{last}: ")


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless])
def test_damaged_compressed_slices(tmp_path, hu, syntax):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.compress(syntax)
        data.save_as(file)
    whole = file.read_bytes()
    for damaged in (whole[:-8], whole[:-60]):
        file.write_bytes(damaged)
        assert fault(folder) == f"{file}: truncated: it ends within its compressed pixels"


def test_deflated_garbage(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    file = files_of(folder)[0]
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data.save_as(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    assert fault(folder).startswith(f"{file}: ")


def test_a_header_that_announces_other_pixels(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    file = files_of(folder)[3]
    for rows, words in ((90, "198 bytes of pixels where its header announces 1980"), (3, "198 bytes of pixels")):
        data = pydicom.dcmread(file)
        data.Rows = rows
        data.save_as(file)
        assert words in fault(folder)
