"""DICOM series as scanners, archives and discs deliver them: put together by content, or refused in one line."""

import io
import shutil

import numpy as np
import pydicom
import pytest
from helpers.dicom_checks import AFFINE, SHAPE, check, fault, files_of, leave_out, make_hu
from helpers.scan_files import make_affine, make_slice, write_pngs, write_series, write_volume
from pydicom import uid
from pydicom.filewriter import write_file_meta_info

from lens_d2.data.cache import VolumeCache
from lens_d2.data.sources import DicomFolder, PngFolder, open_source
from lens_d2.data.volume import read_volume


@pytest.fixture
def hu() -> np.ndarray:
    """(k, j, i) int16."""
    return make_hu()


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
    assert (
        "2 DICOM series or parts of one, name one (--series): 1.2.3:1 (7 slices, 11 x 9 pixels of 0.7 x 0.8 mm"
        in message
    )
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
