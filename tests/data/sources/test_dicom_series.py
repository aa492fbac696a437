"""Series that hold more than one scan, copies, or images that belong to none."""

import gzip
import shutil

import numpy as np
import pydicom
import pytest
from helpers.dicom_checks import AFFINE, check, fault, files_of, move
from helpers.scan_files import write_enhanced, write_series
from pydicom import uid

from lens_d2.data.sources import open_source
from lens_d2.data.sources.dicom_series import read_index
from lens_d2.data.volume import read_volume
from lens_d2.io.errors import DataError


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


@pytest.mark.parametrize(
    ("mark", "values", "shown"),
    [
        ("ConvolutionKernel", ("DOE", "DOE JOHN"), "ConvolutionKernel ..."),
        ("ConvolutionKernel", ("4711", "DOE"), "ConvolutionKernel ..."),
        ("ImageType", (["ORIGINAL", "DOE"], ["DERIVED", "DOE", "AXIAL"]), "ImageType ..."),
        ("ImageType", (["ORIGINAL", "PRIMARY"], ["DERIVED", "PRIMARY"]), "ImageType ['DERIVED', 'PRIMARY']"),
        ("AcquisitionNumber", (1, 2), "AcquisitionNumber 1"),
    ],
)
def test_free_text_is_shown_only_to_pick_a_part(tmp_path, hu, mark, values, shown):
    folder = twice(tmp_path / "ct", hu, first={mark: values[0]}, second={mark: values[1]})
    (warning,) = read_volume(folder, series_uid="1.2.3:1").warnings
    assert warning == f"part 1 of 2 of its series: 7 of 14 images, {shown}"
    listed = [str(part) for part in read_index(folder.iterdir()).parts]
    assert all(any(str(value) in line for line in listed) for value in values)
    with pytest.raises(DataError) as error:
        read_volume(folder)
    assert "DOE" not in error.value.without_private(lambda text: "...")


def test_acquisitions_that_alternate(tmp_path, hu):
    """Together they would be a regular stack of half the interval."""
    marks = {"first": {"AcquisitionNumber": 1}, "second": {"AcquisitionNumber": 2}}
    folder = twice(tmp_path / "ct", hu, offset=(0, 0, 1.25), **marks)
    check(folder, hu, warning="part 1 of 2", series_uid="1.2.3:1")


@pytest.mark.parametrize(
    ("mark", "values"),
    [("PatientID", ("A", "B")), ("StudyInstanceUID", ("1.2", "1.9")), ("FrameOfReferenceUID", ("1.5", "1.6"))],
)
def test_a_series_of_two_patients_or_studies_is_two_scans(tmp_path, hu, mark, values):
    """One above the other, as emptied or constant UIDs of a series bring them together."""
    first, second = ({"StudyInstanceUID": "1.2", mark: value} for value in values)
    write_series(tmp_path / "ct", hu, AFFINE, "1.2.3", **first)
    above = lambda k, data: move(data, (0, 0, 2.5 * len(hu)))  # noqa: E731
    write_series(tmp_path / "other", hu + 1, AFFINE, "1.2.3", above, **second)
    for number, file in enumerate(sorted((tmp_path / "other").iterdir())):
        shutil.move(file, tmp_path / f"ct/other{number}.dcm")
    message = fault(tmp_path / "ct")
    assert "2 DICOM series or parts of one" in message and values[0] not in message.replace("1.2.3", "")


def test_slices_of_which_one_lacks_the_study_stay_together(tmp_path, hu):
    def without(k, data):
        data.StudyInstanceUID = "" if k == 2 else "1.2"

    check(write_series(tmp_path / "ct", hu, AFFINE, change=without), hu)


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


def test_copies_of_a_series_in_two_folders_are_one(tmp_path, hu):
    shutil.copytree(write_series(tmp_path / "in/a", hu, AFFINE), tmp_path / "in/b")
    check(tmp_path / "in", hu, warning="7 images are there twice")


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


def test_captures_in_colour_are_no_slices(tmp_path, hu):
    """Such as an AI's findings drawn on the slices, which archives keep beside the scan."""
    write_series(tmp_path / "in/ct", hu, AFFINE, "1.2.3")
    drawn = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    drawn |= {"PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    folder = write_series(tmp_path / "in/drawn", hu, AFFINE, "1.2.4", **drawn)
    check(tmp_path / "in", hu)
    assert "no CT slices, but Secondary Capture Image in colour, modality CT" in fault(folder)
    write_series(folder, hu[:1], AFFINE, "1.2.3", **drawn)
    assert "1.2.3_000.dcm: Secondary Capture Image in colour, modality CT, in a series of CT" in fault(
        tmp_path / "in"
    )


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


@pytest.mark.parametrize("name", ["{}.gz", "{}.part"])
def test_a_packed_or_half_copied_slice_is_refused(tmp_path, hu, name):
    """Passed over, it would leave a shorter scan that passes for the whole."""
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    lowest, *_, file = files_of(folder)
    other = file.rename(file.with_name(name.format(file.name)))
    other.write_bytes(gzip.compress(other.read_bytes()))
    assert fault(folder) == f"{other}: cannot be read as DICOM, but is called like the slices beside it"
    shutil.copy(lowest, file)  # beside a slice of this name, it is a copy
    assert not read_index(folder.iterdir()).damaged


def test_a_part_of_a_concatenation_is_told(tmp_path, hu):
    path = write_enhanced(tmp_path / "ct.dcm", hu, AFFINE)
    data = pydicom.dcmread(path)
    data.ConcatenationUID, data.InConcatenationNumber, data.InConcatenationTotalNumber = "1.2.9", 1, 2
    data.save_as(path)
    check(path, hu, warning="1 of the 2 files that its images are spread over: slices are missing")
    data.InConcatenationTotalNumber = 1
    data.save_as(path)
    assert not read_volume(path).warnings


def test_a_series_without_a_sound_slice_is_listed_with_its_fault(tmp_path, hu):
    write_series(tmp_path / "ct/a", hu, AFFINE, "1.2.3")
    other = write_series(tmp_path / "ct/b", hu[:1], AFFINE, "1.2.4")
    data = pydicom.dcmread(file := files_of(other)[0])
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
    data.save_as(file)
    parts = {part.uid: str(part) for part in read_index(files_of(tmp_path / "ct/a") + files_of(other)).parts}
    assert parts["1.2.4"].endswith("RGB with 3 values per pixel where a CT slice has one grey value")
    assert "grey" not in parts["1.2.3"]
