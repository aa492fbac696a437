"""DICOM as scanners, archives and discs deliver it: read by its content, or refused in one line."""

import io
import shutil
import zlib

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import uid
from pydicom.filewriter import write_file_meta_info
from scan_files import make_affine, make_slice, write_enhanced, write_pngs, write_series, write_volume

from lens_d2.data.cache import VolumeCache
from lens_d2.data.sources import DicomFolder, PngFolder, open_source
from lens_d2.data.volume import read_header, read_volume
from lens_d2.errors import DataError

AFFINE = make_affine((0.7, 0.8, 2.5), origin=(-100, 50, -300))
SHAPE = (7, 9, 11)  # k, j, i


@pytest.fixture
def hu() -> np.ndarray:
    """(k, j, i) int16."""
    return np.random.default_rng(0).integers(-1024, 3071, SHAPE).astype(np.int16)


def fault(source, **options) -> str:
    """What reading says of a bad source, which must be one line that names a file or folder."""
    with pytest.raises(DataError) as caught:
        read_volume(source, **options)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(caught.value.path)
    return str(caught.value)


def check(source, hu, affine=AFFINE, warning=None, **options):
    """Reads a source, which must give these voxels at their places and one warning, or none, with these words."""
    volume = read_volume(source, **options)
    np.testing.assert_array_equal(volume.array, hu)
    np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-6)
    assert volume.geometry == read_header(source, **options)
    assert len(volume.warnings) == (warning is not None), volume.warnings
    assert warning is None or warning in volume.warnings[0]


def leave_out(*places):
    """A ``change`` of write_series that leaves slices out."""
    return lambda k, data: k not in places


def files_of(folder) -> list:
    """The files of a series from the lowest slice to the highest."""
    return sorted(folder.iterdir(), key=lambda file: pydicom.dcmread(file).InstanceNumber)


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
    check(folder, expected)


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
def test_lossless_jpeg(tmp_path, hu, photometric):
    folder = write_series(tmp_path / "ct", hu, AFFINE, PhotometricInterpretation=photometric)
    for file in folder.iterdir():
        with_gdcm(file, pydicom.dcmread(file), "JPEG")
    assert pydicom.dcmread(file).file_meta.TransferSyntaxUID in (uid.JPEGLossless, uid.JPEGLosslessSV1)
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
    file.rename(file.with_suffix(".nii"))
    assert "one slice of a DICOM series" in fault(file.with_suffix(".nii"))
    assert "a single slice has no slice interval" in fault(write_series(tmp_path / "one", hu[:1], AFFINE))


# Places


@pytest.mark.parametrize(
    "direction",
    [
        np.diag([-1, -1, 1]),  # rows to the right, columns to the front
        np.diag([1, -1, -1]),
        [[0, 0, 1], [1, 0, 0], [0, -1, 0]],  # sagittal, rows to the back, columns to the feet
        [[1, 0, 0], [0, 0, 1], [0, -1, 0]],  # coronal
        [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]],
    ],
)
def test_orientations(tmp_path, hu, direction):
    """A series that runs against its normal, such as towards the feet, is turned; every voxel keeps its place."""
    affine = make_affine((0.7, 0.8, 2.5), direction, (-100, 50, -300))
    volume = read_volume(write_series(tmp_path / "ct", hu, affine))
    for k, j, i in np.random.default_rng(0).integers(0, SHAPE, (20, 3)):
        x, y, z = np.rint(volume.geometry.world_to_index([affine[:3] @ [i, j, k, 1]])[0]).astype(int)
        assert volume.array[z, y, x] == hu[k, j, i]
    assert volume.warnings == ()


def test_gantry_tilt_shears_the_affine(tmp_path, hu):
    tilted = AFFINE.copy()
    tilted[1, 2] = 0.5
    folder = tmp_path / "ct"
    write_series(folder, hu, AFFINE, change=lambda k, data: move(data, (0, 0.5 * k, 0)))
    check(folder, hu, tilted)


def move(data, offset):
    position = np.array(data.ImagePositionPatient, float) + offset
    data.ImagePositionPatient = [f"{x:.10g}"[:16] for x in position]


def test_a_slice_that_is_shifted(tmp_path, hu):
    def aside(distance, axis):
        return lambda k, data: move(data, distance * (k == 3) * np.eye(3)[axis])

    folder = write_series(tmp_path / "far", hu, AFFINE, change=aside(4, 0))
    assert "lies 4 mm off its place in a regular stack of 2.5 mm" in fault(folder)
    assert "lies 0.6 mm off" in fault(write_series(tmp_path / "up", hu, AFFINE, change=aside(0.6, 2)))
    folder = write_series(tmp_path / "near", hu, AFFINE, change=aside(0.2, 2))
    check(folder, hu, warning="up to 0.2 mm off a regular interval of 2.5 mm")


def test_intervals_that_drift(tmp_path, hu):
    """Every interval is within a tenth of the others, but the slices wander off a regular stack."""
    array = np.repeat(hu, 4, axis=0)
    heights = np.cumsum([0, *[2.5] * 13, *[2.7] * 14])

    def drift(k, data):
        data.ImagePositionPatient = [-100, 50, f"{heights[k]:.6f}"]

    assert "off its place in a regular stack" in fault(write_series(tmp_path / "ct", array, AFFINE, change=drift))


@pytest.mark.parametrize("interval, decimals", [(2.5, 0), (1.25, 1), (0.625, 2), (1, 0), (1 / 3, 2)])
def test_rounded_positions(tmp_path, hu, interval, decimals):
    """Positions are as exact as they are written: 1.25 mm written as 1.2 and 1.3 are regular, without a word."""

    def rounded(k, data):
        data.ImagePositionPatient = [-100, 50, f"{-300 + k * interval:.{decimals}f}"]

    volume = read_volume(write_series(tmp_path / "ct", hu, AFFINE, change=rounded))
    np.testing.assert_array_equal(volume.array, hu)
    assert volume.geometry.slice_interval == pytest.approx(interval, abs=10.0**-decimals / len(hu))
    assert volume.warnings == ()


def test_half_a_millimetre_written_in_whole_ones(tmp_path, hu):
    def rounded(k, data):
        data.ImagePositionPatient = [-100, 50, k // 2]

    assert "lies where" in fault(write_series(tmp_path / "ct", hu, AFFINE, change=rounded))


def test_a_gap_hides_behind_no_rounding(tmp_path, hu):
    def whole(k, data):
        data.ImagePositionPatient = [-100, 50, k]
        return k != 3

    assert "1 slice is missing" in fault(write_series(tmp_path / "ct", hu, AFFINE, change=whole))


# Gaps


@pytest.mark.parametrize("gap", [[3], [2, 3], [1, 4, 5]])
def test_gaps_are_refused_or_interpolated(tmp_path, hu, gap):
    hu = np.repeat(hu, 2, axis=0)
    folder = write_series(tmp_path / "ct", hu, AFFINE, change=leave_out(*gap))
    message = fault(folder)
    assert message.startswith(f"{folder}: irregular slice spacing: ") and "2.5 mm elsewhere" in message
    assert "--fill-gaps interpolates up to 2 in a row" in message
    expected = hu.astype(float)
    for k in gap:
        below, above = (next(n for n in run if n not in gap) for run in (range(k, -1, -1), range(k, len(hu))))
        expected[k] = hu[below] + (k - below) / (above - below) * (hu[above].astype(float) - hu[below])
    plural = "slice is" if len(gap) == 1 else "slices are"
    check(folder, np.rint(expected), warning=f"{len(gap)} {plural} missing between", fill_gaps=True)
    assert open_source({"file_name": folder, "fill_gaps": True}).slice_files() == []


def test_a_wide_gap_is_always_refused(tmp_path, hu):
    folder = write_series(tmp_path / "ct", np.repeat(hu, 2, axis=0), AFFINE, change=leave_out(5, 6, 7))
    assert "10 mm from" in fault(folder) and "3 slices are missing (more than 2" in fault(folder, fill_gaps=True)


def test_gaps_are_cached_apart(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    cache = VolumeCache(tmp_path / "cache")
    assert cache.path({"file_name": folder}) != cache.path({"file_name": folder, "fill_gaps": True})


def test_what_older_versions_cached_is_not_used(tmp_path, hu, monkeypatch):
    cache, dicom = VolumeCache(tmp_path / "cache"), {"file_name": write_series(tmp_path / "ct", hu, AFFINE)}
    pngs = {"file_name": write_pngs(tmp_path / "png", hu), "spacing": [1, 1, 1]}
    before = cache.path(dicom), cache.path(pngs)
    monkeypatch.setattr(DicomFolder, "VERSION", 1)
    monkeypatch.setattr(PngFolder, "VERSION", 2)
    after = cache.path(dicom), cache.path(pngs)
    assert before[0] != after[0] and before[1] != after[1]


# Series that hold more than one scan


def twice(folder, hu, series="1.2.3", offset=(0, 0, 0), first=None, second=None):
    """The same slices twice in one series, the second time with other values, elements and places."""
    write_series(folder, hu, AFFINE, series, StudyInstanceUID="1.2", **(first or {}))
    others = folder.with_name(f"{folder.name}_second")
    change = (lambda k, data: move(data, offset)) if any(offset) else None
    write_series(others, hu + 1, AFFINE, series, change, StudyInstanceUID="1.2", **(second or {}))
    for number, file in enumerate(sorted(others.iterdir())):
        shutil.move(file, folder / f"other{number}.dcm")
    others.rmdir()
    return folder


@pytest.mark.parametrize(
    "mark, values",
    [
        ("AcquisitionNumber", (1, 2)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL"])),
        ("ConvolutionKernel", ("B30f", "B70f")),
        ("AcquisitionTime", ("101112", "101312")),
    ],
)
def test_acquisitions_and_phases(tmp_path, hu, mark, values):
    folder = twice(tmp_path / "ct", hu, first={mark: values[0]}, second={mark: values[1]})
    message = fault(folder)
    assert "2 DICOM series or parts of one" in message and f"1.2.3:1 (7 slices, {mark}" in message
    assert message == fault(folder, series_uid="1.2.3")
    both = [read_volume(folder, series_uid=f"1.2.3:{part}").array for part in (1, 2)]
    np.testing.assert_array_equal(sorted(array[0, 0, 0] for array in both), [hu[0, 0, 0], hu[0, 0, 0] + 1])
    assert "part 1 of 2 of its series" in read_volume(folder, series_uid="1.2.3:1").warnings[0]
    assert "no DICOM series 1.2.3:3" in fault(folder, series_uid="1.2.3:3")


def test_acquisitions_that_alternate(tmp_path, hu):
    """Together they would be a regular stack of half the interval."""
    marks = {"first": {"AcquisitionNumber": 1}, "second": {"AcquisitionNumber": 2}}
    folder = twice(tmp_path / "ct", hu, offset=(0, 0, 1.25), **marks)
    check(folder, hu, warning="part 1 of 2", series_uid="1.2.3:1")


def test_acquisitions_one_above_the_other_are_one_scan(tmp_path, hu):
    def rotation(k, data):
        data.AcquisitionNumber = k // 3

    check(write_series(tmp_path / "ct", hu, AFFINE, change=rotation), hu)


def test_repeated_places_that_nothing_tells_apart(tmp_path, hu):
    message = fault(twice(tmp_path / "ct", hu))
    assert (
        "irregular slice spacing: " in message and "7 of 14 slices do), and no element tells them apart" in message
    )
    message = fault(twice(tmp_path / "half", hu, offset=(0, 0, 3 * 2.5)))
    assert "4 of 14 slices do)" in message


def test_exact_copies_are_dropped(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    shutil.copy(files_of(folder)[2], folder / "copy")
    check(folder, hu, warning="1 image is there twice with the same pixels: left out once")
    data = pydicom.dcmread(folder / "copy")
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    data.save_as(folder / "copy")
    check(folder, hu, warning="1 image is there twice")
    assert len(open_source({"file_name": folder}).slice_files()) == len(hu)


def test_one_sop_instance_uid_for_all_slices_makes_no_copies(tmp_path, hu):
    check(write_series(tmp_path / "ct", hu, AFFINE, SOPInstanceUID="1.2.3.4"), hu)


def test_a_localizer_in_the_series_is_left_out(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE, "1.2.3")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    write_series(tmp_path / "scout", hu[:1, :5], AFFINE, "1.2.3", **scout)
    shutil.copy(next((tmp_path / "scout").iterdir()), folder / "scout")
    check(folder, hu, warning="1 localizer image is left out")
    assert "no CT slices, but CT Image, modality CT" in fault(tmp_path / "scout")


@pytest.mark.parametrize(
    "elements",
    [{"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, {"PixelSpacing": [0.9, 0.9]}, {"Rows": 3, "Columns": 33}],
)
def test_slices_of_another_shape(tmp_path, hu, elements):
    folder = write_series(tmp_path / "ct", hu, AFFINE, "1.2.3")
    write_series(tmp_path / "odd", hu[:1], AFFINE, "1.2.3", **elements)
    shutil.copy(next((tmp_path / "odd").iterdir()), folder / "odd")
    message = fault(folder)
    assert "2 DICOM series or parts of one, name one: 1.2.3:1 (7 slices, 11 x 9 pixels of 0.7 x 0.8 mm" in message
    check(folder, hu, warning="part 1 of 2 of its series: 7 of 8 images", series_uid="1.2.3:1")


def test_several_series_are_listed(tmp_path, hu):
    write_series(tmp_path / "ct", hu, AFFINE, "1.2.3")
    write_series(tmp_path / "ct", hu[:4], AFFINE, "1.2.4")
    message = fault(tmp_path / "ct")
    assert "2 DICOM series" in message and "1.2.3 (7 slices)" in message and "1.2.4 (4 slices)" in message
    assert "no DICOM series 1.2.5" in fault(tmp_path / "ct", series_uid="1.2.5")
    check(tmp_path / "ct", hu[:4], series_uid="1.2.4")


# Folders


def test_a_series_in_several_folders_is_joined(tmp_path, hu):
    folder = write_series(tmp_path / "in", hu, AFFINE)
    for number, file in enumerate(files_of(folder)):
        part = folder / f"IMG{number // 3}"
        part.mkdir(exist_ok=True)
        file.rename(part / f"{number % 3}")
    check(folder, hu)


def test_copies_of_a_series_in_two_folders_are_one(tmp_path, hu):
    shutil.copytree(write_series(tmp_path / "in/a", hu, AFFINE), tmp_path / "in/b")
    check(tmp_path / "in", hu, warning="7 images are there twice")


def test_what_accompanies_a_series_is_passed_over(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE, "1.2.3")
    classes = [uid.RTStructureSetStorage, uid.ComprehensiveSRStorage, uid.KeyObjectSelectionDocumentStorage]
    classes += [
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.MediaStorageDirectoryStorage,
        uid.RawDataStorage,
    ]
    for sop_class in classes:
        data = make_slice(hu[0], "1.2.9", "1.2", sop_class)
        del data.PixelData, data.Rows
        data.Modality = "OT"
        data.save_as(folder / f"{sop_class}.dcm", enforce_file_format=True)
    for sop_class in (uid.SegmentationStorage, uid.RTDoseStorage, uid.SecondaryCaptureImageStorage):
        make_slice(hu[0], "1.2.9", "1.2", sop_class).save_as(folder / f"{sop_class}", enforce_file_format=True)
    for name in ("notes.txt", "Thumbs.db", "._IM0001.dcm", ".DS_Store"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07 no DICOM")
    write_volume(folder / "mask.nii.gz", hu, AFFINE)
    check(folder, hu)


def test_other_modalities_are_refused(tmp_path, hu):
    kinds = {"MR": uid.MRImageStorage, "PT": uid.PositronEmissionTomographyImageStorage}
    for modality, sop_class in kinds.items():
        folder = write_series(tmp_path / modality, hu, AFFINE, SOPClassUID=sop_class, Modality=modality)
        assert f"no CT slices, but {sop_class.name.removesuffix(' Storage')}, modality {modality}" in fault(folder)
        assert "no CT slices" in fault(next(folder.iterdir()))
    folder = write_series(tmp_path / "contradiction", hu, AFFINE, Modality="MR")
    assert "no CT slices, but CT Image, modality MR" in fault(folder)
    write_series(tmp_path / "MR", hu, AFFINE)
    check(tmp_path / "MR", hu)  # beside the other images, CT is meant


def test_a_stranger_in_a_series_is_refused(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    file = files_of(folder)[-1]
    data = pydicom.dcmread(file)
    data.Modality = "MR"
    data.save_as(file)
    assert fault(folder) == f"{file}: CT Image, modality MR, in a series of CT"


def test_secondary_captures_with_a_place(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE, SOPClassUID=uid.SecondaryCaptureImageStorage)
    check(folder, hu, warning="secondary captures")


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


def test_previews_beside_a_series(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    write_pngs(folder, hu)
    check(folder, hu)


def test_pngs_beside_a_report_are_slices(tmp_path, hu):
    folder = write_pngs(tmp_path / "png", hu)
    data = make_slice(hu[0], "1.2.9", "1.2", uid.ComprehensiveSRStorage)
    del data.PixelData
    data.save_as(folder / "detections.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(folder, spacing=[1, 1, 5]).array, hu)
    shutil.copy(folder / "001.png", folder / "1.png")
    assert "has the number of" in fault(folder, spacing=[1, 1, 5])


# Damage


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
    file.write_bytes(whole[:-100] + bytes(80) + whole[-20:])
    assert fault(folder).startswith(f"{file}: ")


def test_deflated_garbage(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    file = files_of(folder)[0]
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data.save_as(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    assert fault(folder).startswith(f"{file}: ")
    assert zlib.crc32(whole) != zlib.crc32(file.read_bytes())


def test_a_header_that_announces_other_pixels(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    file = files_of(folder)[3]
    for rows, words in ((90, "198 bytes of pixels where its header announces 1980"), (3, "198 bytes of pixels")):
        data = pydicom.dcmread(file)
        data.Rows = rows
        data.save_as(file)
        assert words in fault(folder)


def test_a_damaged_slice_takes_no_longer_than_a_sound_series(tmp_path, hu, monkeypatch):
    """Every file is opened for its header once, and none for its pixels."""
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    file = files_of(folder)[-1]
    file.write_bytes(file.read_bytes()[:-20])
    seen = []
    original = pydicom.filereader.read_dataset
    monkeypatch.setattr("pydicom.filereader.read_dataset", lambda *a, **o: seen.append(1) or original(*a, **o))
    fault(folder)
    assert len(seen) <= 3 * len(hu)  # pydicom calls it for a file's meta information too
