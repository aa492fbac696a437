"""Folders of DICOM files as scanners, archives and discs deliver them: read by content, or refused in one line."""

import pydicom
import pytest
from helpers.dicom_checks import AFFINE, check, fault, files_of
from helpers.scan_files import make_slice, write_pngs, write_series, write_volume
from pydicom import uid

from lens_d2.data.cache import VolumeCache
from lens_d2.data.sources import DicomFolder, PngFolder, open_source


def test_a_series(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    check(folder, hu)
    assert open_source({"file_name": folder}).slice_files() == files_of(folder)


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


def test_units_that_are_not_hu(tmp_path, hu):
    check(write_series(tmp_path / "ct", hu, AFFINE, RescaleType="MGML"), hu, warning="calls the values MGML")


@pytest.mark.parametrize(
    ("terms", "warning"),
    [
        (["DERIVED", "SECONDARY", "AXIAL", "MAX_IP"], "maximum intensity projections (ImageType MAX_IP)"),
        (["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"], "maximum intensity projections (ImageType MIP)"),
        (["DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"], "effective atomic numbers"),
        (["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"], "the concentration of a material"),
        (["DERIVED", "SECONDARY", "MPR"], None),
        (["DERIVED", "PRIMARY", "AXIAL", "VMI"], None),
    ],
)
def test_images_computed_from_ct_are_told(tmp_path, hu, terms, warning):
    check(write_series(tmp_path / "ct", hu, AFFINE, ImageType=terms), hu, warning=warning)


def test_a_single_slice_is_no_scan(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    file = files_of(folder)[2]
    assert fault(file) == f"{file}: one slice of a DICOM series: give the folder with all of its slices"
    assert "a single slice has no slice interval" in fault(write_series(tmp_path / "one", hu[:1], AFFINE))


def test_several_series_are_listed(tmp_path, hu):
    write_series(tmp_path / "ct", hu, AFFINE, "1.2.3")
    write_series(tmp_path / "ct", hu[:4], AFFINE, "1.2.4")
    message = fault(tmp_path / "ct")
    assert "2 DICOM series" in message and "1.2.3 (7 slices)" in message and "1.2.4 (4 slices)" in message
    assert "no DICOM series 1.2.5" in fault(tmp_path / "ct", series_uid="1.2.5")
    check(tmp_path / "ct", hu[:4], series_uid="1.2.4")


def test_a_series_in_several_folders_is_joined(tmp_path, hu):
    folder = write_series(tmp_path / "in", hu, AFFINE)
    for number, file in enumerate(files_of(folder)):
        part = folder / f"IMG{number // 3}"
        part.mkdir(exist_ok=True)
        file.rename(part / f"{number % 3}")
    check(folder, hu)


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


def test_previews_beside_a_series(tmp_path, hu):
    folder = write_series(tmp_path / "ct", hu, AFFINE)
    write_pngs(folder, hu)
    check(folder, hu)


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
