"""Finding scans where users keep them."""

import os
import re
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
from helpers.scan_files import make_affine, make_slice, write_enhanced, write_pngs, write_series, write_volume
from pydicom import uid

from lens_d2.data.scans import DICOM, PICTURES, PNG, VOLUME, SeveralSeries, find_scans, public_names
from lens_d2.data.sources.dicom_series import read_index
from lens_d2.data.volume import read_volume
from lens_d2.io.errors import DataError, private, quoted
from lens_d2.io.files import visible_files

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (3, 8, 9)).astype(np.int16)
AFFINE = make_affine((1, 1, 3))


def fault(*args, **options) -> str:
    with pytest.raises(DataError) as caught:
        find_scans(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii", "ct.mha", "ct.mhd", "ct.nrrd"])
def test_a_file(tmp_path, name):
    path = write_volume(tmp_path / name, ARRAY, AFFINE)
    (scan,) = find_scans(path)
    assert (scan.name, scan.kind, scan.record) == ("scan_001", VOLUME, {"file_name": str(path), "volume": "scan"})
    assert find_scans(path, keep_ids=True)[0].name == "ct"
    np.testing.assert_array_equal(read_volume(scan.record).array, ARRAY)


def test_a_compressed_pair_is_found_among_others(tmp_path):
    pair = nibabel.Nifti1Pair(ARRAY.T, np.eye(4))
    nibabel.save(pair, tmp_path / "pair.img.gz")
    write_volume(tmp_path / "ct.nii.gz", ARRAY, AFFINE)
    assert [scan.name for scan in find_scans(tmp_path, keep_ids=True)] == ["ct", "pair"]
    for scan in find_scans(tmp_path):
        np.testing.assert_array_equal(read_volume(scan.record).array, ARRAY)


def test_a_dicom_folder(tmp_path):
    folder = write_series(tmp_path / "Doe_John", ARRAY, AFFINE)
    (scan,) = find_scans(folder)
    assert (scan.name, scan.kind) == ("scan_001", DICOM)
    np.testing.assert_array_equal(read_volume(scan.record).array, ARRAY)
    assert find_scans(folder, keep_ids=True)[0].name == "Doe_John"


def test_dicom_files_without_an_extension(tmp_path):
    folder = write_series(tmp_path / "s", ARRAY, AFFINE)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"IM{number}")
    assert [scan.kind for scan in find_scans(tmp_path)] == [DICOM]


def test_several_series_are_listed_and_one_is_picked(tmp_path):
    folder = write_series(tmp_path / "s", ARRAY, AFFINE, "1.2.3", SeriesDescription="Thorax 3.0")
    write_series(folder, ARRAY[:2], AFFINE, "1.2.4", SeriesDescription="Scout")
    with pytest.raises(SeveralSeries, match="holds 2 DICOM series") as caught:
        find_scans(folder)
    assert sorted(caught.value.lines) == ["1.2.3  3 images  CT  Thorax 3.0", "1.2.4  2 images  CT  Scout"]
    assert [str(part) for part in read_index(visible_files(folder)).parts] == caught.value.lines
    (scan,) = find_scans(folder, series_uid="1.2.4")
    assert read_volume(scan.record).array.shape == (2, 8, 9)
    assert "no DICOM series 1.2.5" in fault(folder, series_uid="1.2.5")


def test_a_series_is_picked_from_a_nested_export(tmp_path):
    write_series(tmp_path / "patient/study/a", ARRAY, AFFINE, "1.2.3")
    write_series(tmp_path / "patient/study/b", ARRAY[:2], AFFINE, "1.2.4")
    assert [scan.kind for scan in find_scans(tmp_path)] == [DICOM, DICOM]
    (scan,) = find_scans(tmp_path, series_uid="1.2.4")
    assert scan.record["file_name"].endswith("b")


def test_png_slices_need_their_spacing(tmp_path):
    folder = write_pngs(tmp_path / "000001_01_01", ARRAY)
    assert "PNG slices carry no spacing" in found(folder)[0][-1]
    (scan,) = find_scans(folder, spacing=(0.8, 0.8, -5))
    assert (scan.name, scan.kind, scan.record["spacing"]) == ("scan_001", PNG, [0.8, 0.8, -5.0])
    assert read_volume(scan.record).geometry.flips == (False, False, True)


def test_a_folder_of_everything(tmp_path):
    for folder in ("deep/er", "out"):
        (tmp_path / folder).mkdir(parents=True)
    write_volume(tmp_path / "b.nii.gz", ARRAY, AFFINE)
    write_volume(tmp_path / "a.mhd", ARRAY, AFFINE)
    write_volume(tmp_path / "deep/er/b.nrrd", ARRAY, AFFINE)
    write_series(tmp_path / "x/series", ARRAY, AFFINE)
    write_pngs(tmp_path / "000001_01_01", ARRAY)
    write_volume(tmp_path / "out/detections.nii.gz", ARRAY, AFFINE)
    write_volume(tmp_path / ".hidden.nii", ARRAY, AFFINE)
    (tmp_path / "notes.txt").write_text("not a scan")
    (tmp_path / "x/picture.png").write_bytes(b"no slice")
    scans = find_scans(tmp_path, spacing=(1, 1, 5), leave_out=tmp_path / "out", keep_ids=True)
    assert [(scan.name, scan.kind) for scan in scans] == [
        ("a", VOLUME),
        ("b", VOLUME),
        ("000001_01_01", PNG),
        ("deep_er_b", VOLUME),
        ("x_series", DICOM),
    ]


def test_links_are_followed_and_none_twice(tmp_path):
    (tmp_path / "store").mkdir()
    write_volume(tmp_path / "store/b.nii.gz", ARRAY, AFFINE)
    write_series(tmp_path / "store/series", ARRAY, AFFINE)
    archive = tmp_path / "archive"
    archive.mkdir()
    for name, target in {"case 1": "../store", "case 2": "../store", "again": "."}.items():
        (archive / name).symlink_to(target)
    scans = find_scans(archive, keep_ids=True)
    assert [(scan.name, scan.kind) for scan in scans] == [("case_1_b", VOLUME), ("case_1_series", DICOM)]
    assert all(read_volume(scan.record).array.shape == ARRAY.shape for scan in scans)


def test_a_folder_with_a_nifti_pair(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(ARRAY.T, np.diag([-1, -1, 3, 1])), tmp_path / "pair.img")
    (scan,) = find_scans(tmp_path, keep_ids=True)
    assert (scan.name, scan.kind) == ("pair", VOLUME)
    np.testing.assert_array_equal(read_volume(scan.record).array, ARRAY)


def test_names_are_unique(tmp_path):
    for name in ("a b.nii", "a_b.nii", "a_b.mha"):
        write_volume(tmp_path / name, ARRAY, AFFINE)
    assert [scan.name for scan in find_scans(tmp_path, keep_ids=True)] == ["a_b", "a_b_2", "a_b_3"]
    assert [scan.name for scan in find_scans(tmp_path)] == ["scan_001", "scan_002", "scan_003"]


def test_long_names_are_cut_and_stay_apart(tmp_path):
    folder = tmp_path.joinpath(*["ä" * 40] * 4)
    folder.mkdir(parents=True)
    for name in "ab":
        write_volume(folder / f"{name}.nii", ARRAY, AFFINE)
    first, second = (scan.name for scan in find_scans(tmp_path, keep_ids=True))
    assert first != second and first.startswith("ä" * 40 + "_ä")
    assert all(140 < len(name.encode()) <= 150 for name in (first, second))


def test_no_scan_takes_the_name_of_the_table(tmp_path):
    write_volume(tmp_path / "scans.csv.nii.gz", ARRAY, AFFINE)
    assert [scan.name for scan in find_scans(tmp_path, keep_ids=True)] == ["scans.csv_2"]


def test_messages_without_names(tmp_path):
    folder = write_series(tmp_path / "Doe_John", ARRAY, AFFINE)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"Doe_{number}.dcm")
    (scan,) = find_scans(folder)
    first, last = private("Doe_0.dcm"), private("Doe_1.dcm")
    error = DataError(folder, f"1 mm from {first} to {last} in {private('Doe_John')}, a {quoted('Doer')} has 1 mm")
    assert error.without_private(public_names(scan)) == "1 mm from file 1 to file 2 in scan_001, a ... has 1 mm"
    (scan,) = find_scans(write_volume(tmp_path / "Doe  Jane.nii.gz", ARRAY, AFFINE))
    shown = public_names(scan)
    assert [shown(name) for name in ("Doe Jane.nii.gz", "Doe Jane", "Doe")] == ["scan_001", "scan_001", "..."]


def test_numbers_in_messages_stay_whatever_the_files_are_called(tmp_path):
    """As on discs, where the slices are called 1, 2, 3 ..."""
    folder = write_series(tmp_path / "disc", np.concatenate([ARRAY, ARRAY]), AFFINE)
    for number, file in enumerate(sorted(folder.iterdir()), 1):
        file.rename(folder / str(number))
    step, places = (
        AFFINE[2, 2],
        {path.name: pydicom.dcmread(path).ImagePositionPatient[2] for path in folder.iterdir()},
    )
    second = sorted(places, key=places.get)[1]
    (folder / second).unlink()
    (scan,) = find_scans(folder)
    with pytest.raises(DataError) as error:
        read_volume(scan.record)
    shown = error.value.without_private(public_names(scan))
    assert re.match(
        rf"irregular slice spacing: {2 * step:g} mm from file \d to file \d, {step:g} mm elsewhere; 1 s", shown
    )


def test_a_folder_or_slice_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    """Not passed over, as half of a scan would be read without a word."""
    write_series(tmp_path / "in/a", ARRAY, AFFINE)
    (tmp_path / "in/z").mkdir()
    write_volume(tmp_path / "in/z/ct.nii", ARRAY, AFFINE)
    scandir, opened = os.scandir, open

    def refuse(path, *args):
        if os.fspath(path).endswith(("/z", "Doe.dcm")):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return (scandir if not args else opened)(path, *args)

    monkeypatch.setattr("os.scandir", refuse)
    sound, denied = find_scans(tmp_path / "in")
    assert sound.fault is None and str(denied.fault) == f"{tmp_path}/in/z: cannot be read: Permission denied"
    with pytest.raises(DataError, match="in/z: cannot be read: Permission denied"):
        read_volume({"file_name": tmp_path / "in"})
    file = sorted((tmp_path / "in/a").iterdir())[0]
    file.rename(file.with_name("Doe.dcm"))
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match="Doe.dcm: cannot be read: Permission denied"):
        read_volume({"file_name": tmp_path / "in/a"})


def test_nothing_there(tmp_path):
    assert fault(tmp_path / "absent").endswith("no such file or folder")
    assert "holds no volume file" in fault(tmp_path)
    (tmp_path / "notes.txt").write_text("not a scan")
    assert "holds no volume file" in fault(tmp_path)


# What lies beside scans


def found(path, **options) -> list[tuple]:
    """Kind, place below the path, series and fault of everything found."""
    return [
        (
            scan.kind,
            Path(scan.record["file_name"]).relative_to(path).as_posix(),
            scan.record.get("series_uid"),
            scan.fault and scan.fault.fault,
        )
        for scan in find_scans(path, **options)
    ]


def report_files(folder):
    """What a run of this project leaves: its report as JSON, a label map, a structured report."""
    folder.mkdir(parents=True)
    (folder / "detections.json").write_text('{\n  "format": "lens_d2 detections",\n  "detections": []\n}\n')
    write_volume(folder / "detections.nii.gz", ARRAY, AFFINE)
    document = make_slice(ARRAY[0], "1.2.9", "1.2", uid.ComprehensiveSRStorage)
    del document.PixelData
    document.save_as(folder / "detections.dcm", enforce_file_format=True)
    (folder / "report.html").write_text("<html></html>")
    (folder / "scans.csv").write_text("folder,status,detections,fault\n")


def preview(file, shape=(8, 8)):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.zeros(shape, np.uint8))


def test_outputs_of_earlier_runs_are_no_scans(tmp_path):
    write_volume(tmp_path / "ct.nii.gz", ARRAY, AFFINE)
    report_files(tmp_path / "out1")
    report_files(tmp_path / "out1/scan_001")
    assert found(tmp_path) == [(VOLUME, "ct.nii.gz", None, None)]
    report_files(tmp_path / "renamed")
    (tmp_path / "renamed/detections.json").rename(tmp_path / "renamed/a.json")
    (tmp_path / "renamed/detections.nii.gz").rename(tmp_path / "renamed/a.nii.gz")
    write_volume(tmp_path / "renamed/detections.nii.gz", ARRAY, AFFINE)  # somebody's scan, unlucky in its name
    assert found(tmp_path)[1:] == [(VOLUME, "renamed/detections.nii.gz", None, None)]


def test_previews_are_no_slices(tmp_path):
    write_series(tmp_path / "ct", ARRAY, AFFINE)
    preview(tmp_path / "ct/1.png")
    assert found(tmp_path / "ct") == [(DICOM, ".", None, None)]
    preview(tmp_path / "screenshots/1.png", (8, 8, 3))
    words = "picture of mode RGB where a 16-bit grey slice (I;16) belongs"
    assert found(tmp_path) == [(DICOM, "ct", None, None), (PICTURES, "screenshots", None, words)]
    assert [scan.is_scan for scan in find_scans(tmp_path)] == [True, False]
    assert words in fault(tmp_path / "screenshots")


def test_a_disc_with_dicomdir(tmp_path):
    folder = write_series(tmp_path / "DISC/DICOM/PAT1/STU1/SER1", ARRAY, AFFINE)
    directory = make_slice(ARRAY[0], "1.2.9", "1.2", uid.MediaStorageDirectoryStorage)
    del directory.PixelData
    directory.save_as(tmp_path / "DISC/DICOMDIR", enforce_file_format=True)
    (tmp_path / "DISC/AUTORUN.INF").write_text("[autorun]")
    assert found(tmp_path / "DISC") == [(DICOM, "DICOM/PAT1/STU1/SER1", None, None)]
    for file in folder.iterdir():
        file.rename(folder / file.stem.upper())
    assert len(found(tmp_path / "DISC")) == 1


def test_other_modalities_are_finds_without_use(tmp_path):
    write_series(tmp_path / "a", ARRAY, AFFINE, SOPClassUID=uid.MRImageStorage, Modality="MR")
    write_series(tmp_path / "b", ARRAY, AFFINE)
    write_series(
        tmp_path / "b", ARRAY, AFFINE, SOPClassUID=uid.PositronEmissionTomographyImageStorage, Modality="PT"
    )
    assert found(tmp_path) == [
        (DICOM, "a", None, "no CT slices, but MR Image, modality MR"),
        (DICOM, "b", None, None),
    ]
    assert found(tmp_path / "b") == [(DICOM, ".", None, None)]


def test_damaged_files_alone_in_a_folder(tmp_path):
    write_series(tmp_path / "a", ARRAY, AFFINE)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/IM1.dcm").write_bytes(b"")
    assert found(tmp_path)[1] == (DICOM, "b", None, "not a DICOM file, or a truncated one")


def test_png_slices_without_spacing_do_not_end_a_batch(tmp_path):
    write_series(tmp_path / "a", ARRAY, AFFINE)
    write_pngs(tmp_path / "b", ARRAY)
    assert [words and "no spacing" in words for *_, words in found(tmp_path)] == [None, True]


def test_a_series_in_several_folders_is_one_scan(tmp_path):
    folder = write_series(tmp_path / "DISC", ARRAY, AFFINE)
    for number, file in enumerate(sorted(folder.iterdir())):
        (folder / f"IMG{number}").mkdir()
        file.rename(folder / f"IMG{number}/{file.name}")
    write_series(tmp_path / "other", ARRAY, AFFINE)
    assert found(tmp_path) == [(DICOM, "DISC", None, None), (DICOM, "other", None, None)]
    np.testing.assert_array_equal(read_volume(find_scans(tmp_path)[0].record).array, ARRAY)


def test_halves_of_a_series_with_a_hole_between_them_are_not_two_scans(tmp_path):
    for name, affine in (("a", AFFINE), ("b", make_affine((1, 1, 3), origin=(0, 0, 30)))):
        write_series(tmp_path / name, ARRAY, affine, "1.2.3", StudyInstanceUID="1.2")
    (scan,) = find_scans(tmp_path)
    with pytest.raises(DataError, match="7 slices are missing"):
        read_volume(scan.record)


def test_slices_without_a_series_uid_are_a_scan_of_their_folder(tmp_path):
    """Of two patients, one above the other in space; they never become one."""
    for number, name in enumerate("ab"):
        affine = make_affine((1, 1, 2.5), origin=(0, 0, 20 * number))
        write_series(
            tmp_path / name,
            np.resize(ARRAY, (8, 8, 9)),
            affine,
            SeriesInstanceUID="",
            StudyInstanceUID="",
            PatientID="",
        )
    scans = find_scans(tmp_path)
    assert [Path(scan.record["file_name"]).name for scan in scans] == ["a", "b"]
    assert [read_volume(scan.record).array.shape[0] for scan in scans] == [8, 8]


def test_a_series_uid_may_hold_a_colon(tmp_path):
    for number in (1, 2):
        affine = make_affine((1, 1, 2.5), origin=(0, 0, 100 * number))
        write_series(
            tmp_path / str(number),
            np.resize(ARRAY, (4, 8, 9)),
            affine,
            SeriesInstanceUID="1.2:3",
            AcquisitionNumber=number,
        )
    assert len(find_scans(tmp_path)) == 2


def test_two_scans_with_one_series_uid_in_two_folders(tmp_path):
    write_series(tmp_path / "a", ARRAY, AFFINE, "1.2.3")
    write_series(tmp_path / "b", ARRAY + 1, AFFINE, "1.2.3")
    assert found(tmp_path) == [(DICOM, "a", None, None), (DICOM, "b", None, None)]
    for scan, array in zip(find_scans(tmp_path), (ARRAY, ARRAY + 1), strict=True):
        np.testing.assert_array_equal(read_volume(scan.record).array, array)


def test_parts_of_a_series_in_folders_of_their_own_say_so(tmp_path):
    """One series whose ends overlap in two folders: each reads as a whole one, and is not."""
    array = np.random.default_rng(1).integers(-1000, 1000, (9, 8, 9)).astype(np.int16)
    for folder, first, last in (("a", 0, 6), ("b", 3, 9)):
        affine = AFFINE.copy()
        affine[2, 3] += 3 * first
        write_series(tmp_path / folder, array[first:last], affine, "1.2.3", StudyInstanceUID="1.9")
    scans = find_scans(tmp_path)
    assert [Path(scan.record["file_name"]).name for scan in scans] == ["a", "b"]
    for number, scan in enumerate(scans, 1):
        (told,) = scan.warnings
        assert told.startswith(f"part {number} of 2 of its series: 6 of 12 images")


def test_a_damaged_copy_leaves_the_sound_one_alone(tmp_path):
    sound = write_series(tmp_path / "a", ARRAY, AFFINE, "1.2.3")
    other = write_series(tmp_path / "b", np.concatenate([ARRAY, ARRAY]) + 1, AFFINE, "1.2.3")
    damaged = sorted(other.iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    (first, second) = find_scans(tmp_path)
    np.testing.assert_array_equal(read_volume(first.record).array, ARRAY)
    assert Path(first.record["file_name"]) == sound
    with pytest.raises(DataError, match=re.escape(str(damaged))):
        read_volume(second.record)


def test_packed_files_alone(tmp_path):
    write_series(tmp_path / "ct", ARRAY, AFFINE)
    for file in list((tmp_path / "ct").iterdir()):
        file.rename(file.with_name(f"{file.name}.gz")).write_bytes(b"\x1f\x8b")
    assert fault(tmp_path).endswith("holds no volume file, DICOM series or PNG slices; unpack its files")


def test_phases_are_picked_as_series_are(tmp_path):
    for phase in (1, 2):
        elements = {"TemporalPositionIdentifier": phase, "SeriesDescription": "4D"}
        write_series(tmp_path / f"{phase}", ARRAY + phase, AFFINE, "1.2.3", **elements)
        for number, file in enumerate((tmp_path / f"{phase}").iterdir()):
            (tmp_path / "in").mkdir(exist_ok=True)
            file.rename(tmp_path / f"in/{phase}{number}")
    folder = tmp_path / "in"
    lines = [f"1.2.3:{n}  3 images  CT  4D  TemporalPositionIdentifier {n}" for n in (1, 2)]
    for options in ({}, {"series_uid": "1.2.3"}):
        with pytest.raises(SeveralSeries, match="holds 2 DICOM series") as caught:
            find_scans(folder, **options)
        assert caught.value.lines == lines
    (scan,) = find_scans(folder, series_uid="1.2.3:2")
    np.testing.assert_array_equal(read_volume(scan.record).array, ARRAY + 2)
    write_series(tmp_path / "other", ARRAY, AFFINE)
    series = [(DICOM, "in", "1.2.3:1", None), (DICOM, "in", "1.2.3:2", None), (DICOM, "other", None, None)]
    assert found(tmp_path) == series  # a batch runs all


def test_a_file_of_frames_and_a_file_of_one_slice(tmp_path):
    path = write_enhanced(tmp_path / "ct", ARRAY, AFFINE)
    (scan,) = find_scans(path, fill_gaps=True)
    assert scan.record == {"file_name": str(path), "volume": "scan", "fill_gaps": True}
    assert found(tmp_path) == [(DICOM, ".", None, None)]
    with pytest.raises(DataError, match="one slice of a DICOM series: give the folder"):
        read_volume(find_scans(next(write_series(tmp_path / "s", ARRAY, AFFINE).iterdir()))[0].record)


def test_messages_about_nested_files_name_nobody(tmp_path):
    folder = write_series(tmp_path / "Doe", ARRAY, AFFINE)
    for number, file in enumerate(sorted(folder.iterdir())):
        (folder / f"Jane{number}").mkdir()
        file.rename(folder / f"Jane{number}/Doe{number}.dcm")
    (scan,) = find_scans(folder)
    shown = public_names(scan)
    assert [shown(name) for name in ("Doe1.dcm", "Jane1", "Doe")] == ["file 2", "folder 2", "scan_001"]
