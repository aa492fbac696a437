"""Finding scans where users keep them."""

import numpy as np
import pytest
from scan_files import make_affine, write_pngs, write_series, write_volume

from lens_d2.data.scans import DICOM, PNG, VOLUME, SeveralSeries, describe_series, find_scans, without_names
from lens_d2.data.volume import read_volume
from lens_d2.errors import DataError

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
    assert describe_series(folder) == caught.value.lines
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
    assert "PNG slices carry no spacing" in fault(folder)
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


def test_names_are_unique(tmp_path):
    for name in ("a b.nii", "a_b.nii", "a_b.mha"):
        write_volume(tmp_path / name, ARRAY, AFFINE)
    assert [scan.name for scan in find_scans(tmp_path, keep_ids=True)] == ["a_b", "a_b_2", "a_b_3"]
    assert [scan.name for scan in find_scans(tmp_path)] == ["scan_001", "scan_002", "scan_003"]


def test_messages_without_names(tmp_path):
    folder = write_series(tmp_path / "Doe_John", ARRAY, AFFINE)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"Doe_{number}.dcm")
    (scan,) = find_scans(folder)
    text = f"{folder}/Doe_1.dcm: 3 mm from Doe_0.dcm to Doe_1.dcm in Doe_John"
    assert without_names(text, scan) == "scan_001/file 2: 3 mm from file 1 to file 2 in scan_001"
    (scan,) = find_scans(write_volume(tmp_path / "Doe.nii.gz", ARRAY, AFFINE))
    assert without_names("Doe.nii.gz: Doe is not a Doer", scan) == "scan_001: scan_001 is not a Doer"


def test_nothing_there(tmp_path):
    assert fault(tmp_path / "absent").endswith("no such file or folder")
    assert "holds no volume file" in fault(tmp_path)
    (tmp_path / "notes.txt").write_text("not a scan")
    assert "holds no volume file" in fault(tmp_path)
