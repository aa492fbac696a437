"""DeepLesion's table and released files become the right records, and what is wrong in them is named."""

import pickle
from functools import partial

import numpy as np
import pytest
from helpers.dataset_files import MARK, mark, write_marks
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.data.datasets.catalog import Faults
from lens_d2.data.datasets.deeplesion import read_annotated, read_mark_table, read_split, sub_volumes
from lens_d2.io import formats as released
from lens_d2.io.errors import DataError
from lens_d2.structures.records import check_record

NAME = "000001_02_03_010-016"
LENS_FILE = "DeepLesion_manual_1K_test_release.pkl"


def marked(root, *rows, split="train", faults=None):
    """The records of a split of a dataset with these rows."""
    write_marks(root, rows)
    return read_split(split, root, Faults() if faults is None else faults)


def annotated(root, file, read, faults=None):
    return read_annotated(file, read, root, Faults() if faults is None else faults)


def test_a_mark_becomes_a_lesion_on_its_key_slice(tmp_path):
    (record,) = marked(tmp_path, mark())
    (lesion,) = record["lesions"]
    assert record["file_name"] == str(tmp_path / "DeepLesion" / "Images_png" / "000001_02_03")
    assert (record["volume"], record["first_slice"], record["num_slices"]) == (NAME, 10, 7)
    assert [record[key] for key in ("patient", "study", "series")] == ["000001", "000001_02", "000001_02_03"]
    assert lesion["boxes"] == [[2, 15.0, 20.0, 46.0, 41.0]]  # pixels 16 to 46 and 21 to 41, counted from 1
    assert lesion["recist"] == [20.5, 30.5, 40.5, 30.5, 30.5, 25.5, 30.5, 35.5]  # centres of those pixels
    assert (lesion["key_slice"], lesion["box3d"], lesion["type"]) == (2, None, "lung")
    assert lesion["diameter_mm"] == pytest.approx(16.0)


def test_the_sub_volumes_of_real_rows(shared_dir):
    rows = read_mark_table(shared_dir / "annotations" / "deeplesion" / "DL_info_sample.csv")
    assert len(rows) == 158
    volumes = sub_volumes(rows)
    assert len(volumes) == 96 and all(volume.z_direction == -1 for volume in volumes.values())
    assert sum(len(volume.marks) for volume in volumes.values()) == 158


def test_names_agree_with_the_released_files(shared_dir):
    """Every sub-volume that is in a released file and in the real rows is found under the same name."""
    folder = shared_dir / "annotations" / "deeplesion"
    derived = sub_volumes(read_mark_table(folder / "DL_info_sample.csv"))
    names = {*released.read_boxes3d(folder / "3D-Box.pkl")}
    names |= {*released.read_revised(folder / "Revised-Train100.pkl")}
    names |= {*released.read_revised(folder / "RECIST-Box-Valid.pkl")}
    for part in (released.read_lens_set(folder / LENS_FILE, part) for part in ("val", "test")):
        names |= part.keys()
    series = {volume.name.series for volume in derived.values()}
    shared = {name for name in names if name[:12] in series}
    assert len(shared) == 20 and shared <= derived.keys()


def test_real_validation_marks_are_those_that_lesion_harvester_released(shared_dir, tmp_path):
    folder = shared_dir / "annotations" / "deeplesion"
    (tmp_path / "DeepLesion").mkdir()
    (tmp_path / "DeepLesion" / "DL_info.csv").write_bytes((folder / "DL_info_sample.csv").read_bytes())
    theirs = released.read_revised(folder / "RECIST-Box-Valid.pkl")
    records = read_split("val", tmp_path, Faults())
    assert len(records) == 12
    for record in records:
        ours = np.array(sorted(box for lesion in record["lesions"] for box in lesion["boxes"]))
        np.testing.assert_allclose(ours, np.array(sorted(theirs[record["volume"]].tolist())), atol=1e-3)


def test_splits_and_noisy_rows(tmp_path):
    rows = [
        mark(),
        mark(key_slice=13, Possibly_noisy="1"),
        mark("000002_01_01", Train_Val_Test="2"),
        mark("000003_01_01", Train_Val_Test="3"),
        mark("000004_01_01", Possibly_noisy="1"),
    ]
    names = {s: [r["volume"] for r in marked(tmp_path, *rows, split=s)] for s in ("train", "val", "test")}
    assert names == {
        "train": [NAME],
        "val": ["000002_01_01_010-016"],
        "test": ["000003_01_01_010-016"],
    }
    (record,) = marked(tmp_path, *rows)
    assert [lesion["id"] for lesion in record["lesions"]] == [f"{NAME}/0"]


def test_gaps_split_a_series_and_touching_ranges_do_not(tmp_path):
    rows = [
        mark(key_slice=12, slices=(10, 16)),
        mark(key_slice=18, slices=(14, 20)),
        mark(key_slice=22, slices=(21, 24)),
        mark(key_slice=30, slices=(26, 32)),
    ]
    records = marked(tmp_path, *rows)
    assert [(r["volume"][13:], [x["key_slice"] for x in r["lesions"]]) for r in records] == [
        ("010-024", [2, 8, 12]),
        ("026-032", [4]),
    ]


@pytest.mark.parametrize(
    ("interval", "expected", "direction"),
    [("5", 5.0, -1), ("-2.5", 2.5, 1), ("NaN", 10.0, -1), ("", 10.0, -1), ("0", 10.0, -1)],
)
def test_slice_intervals_negative_or_missing(tmp_path, interval, expected, direction):
    """Key slice 13 of 10 to 16: three slices of the 30 mm that are released on each side."""
    (record,) = marked(tmp_path, mark(key_slice=13, Spacing_mm_px_=f"0.8, 0.8, {interval}"))
    assert record["spacing"] == [0.8, 0.8, pytest.approx(expected)]
    assert record["z_direction"] == direction


def test_a_missing_interval_is_taken_from_the_series(tmp_path):
    rows = [
        mark(Spacing_mm_px_="0.8, 0.8, NaN"),
        mark(key_slice=30, slices=(26, 32), Spacing_mm_px_="0.8, 0.8, 2"),
    ]
    assert [record["spacing"][2] for record in marked(tmp_path, *rows)] == [2.0, 2.0]


def test_margin_that_sticks_out_is_cut_and_more_is_a_fault(tmp_path):
    (record,) = marked(tmp_path, mark(Bounding_boxes="-3, 60, 20, 69"))
    assert record["lesions"][0]["boxes"] == [[2, 0.0, 59.0, 20.0, 64.0]]
    faults = Faults()
    rows = [mark(Bounding_boxes="10, 10, 80, 20"), mark("000002_01_01")]
    records = marked(tmp_path, *rows, faults=faults)
    assert [record["volume"] for record in records] == ["000002_01_01_010-016"]
    (error,) = faults.values()
    assert "DL_info.csv: line 2" in str(error) and "outside the image of 64 x 64" in str(error)


@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("File_name", "../../etc/000001_02_03_012.png", "File_name"),
        ("File_name", "000001_02_03_013.png", "File_name is of another slice"),
        ("Bounding_boxes", "16, NaN, 46, 41", "Bounding_boxes is missing or not a number"),
        ("Bounding_boxes", "16, 21, 46", "3 numbers, not 4"),
        ("Measurement_coordinates", "", "Measurement_coordinates has 1 numbers"),
        ("Key_slice_index", "twelve", "Key_slice_index is 'twelve'"),
        ("Slice_range", "14, 20", "not in the Slice_range 14 to 20"),
        ("Slice_range", "10.6, 13.4", "Slice_range is '10.6, 13.4'; whole numbers"),
        ("Spacing_mm_px_", "0.8, 0.8, 1e300", "Spacing_mm_px_ is '0.8, 0.8, 1e300'"),
        ("Train_Val_Test", "3.7", "Train_Val_Test is '3.7'; whole numbers"),
        ("Spacing_mm_px_", "0, 0.8, 5", "the pixel spacing is 0 x 0.8"),
        ("Spacing_mm_px_", "0.8, NaN, 5", "Spacing_mm_px_ is missing"),
        ("Image_size", "0, 64", "the Image_size is 0 x 64"),
        ("Train_Val_Test", "inf", "Train_Val_Test is missing or not a number"),
        ("Train_Val_Test", "4", "Train_Val_Test is 4, not one of 1, 2, 3"),
    ],
)
def test_rows_that_make_no_sense_are_named(tmp_path, column, text, expected):
    path = write_marks(tmp_path, [mark("000002_01_01"), {**MARK, column: text}])
    with pytest.raises(DataError) as error:
        read_mark_table(path)
    assert str(error.value).startswith(f"{path}: line 3 (") and expected in str(error.value)
    faults = Faults()
    assert len(read_mark_table(path, faults)) == 1
    assert list(faults) == ["DL_info.csv, line 3"]


def test_a_table_without_a_column_or_none_at_all(tmp_path):
    path = write_marks(tmp_path, [MARK], [column for column in MARK if column != "Slice_range"])
    with pytest.raises(DataError, match="DL_info.csv: no column Slice_range"):
        read_mark_table(path)
    with pytest.raises(DataError, match="absent.csv: cannot be read"):
        read_mark_table(tmp_path / "absent.csv")
    path.write_bytes(b"\x80\x02}q\x00.\xff\xfe")
    with pytest.raises(DataError, match="DL_info.csv: "):
        read_mark_table(path)


def test_lens_set(tmp_path):
    write_marks(tmp_path, [mark()])
    content = {"val": {NAME: np.array([[3.0, 4.0, 11.0, 20.0, 30.0, 13.0]])}, "test": {NAME: np.zeros((0, 6))}}
    path = tmp_path / "DeepLesion" / "annotations" / LENS_FILE
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(content))
    (record,) = annotated(tmp_path, LENS_FILE, partial(released.read_lens_set, part="val"))
    (lesion,) = record["lesions"]
    assert lesion["box3d"] == [3.0, 4.0, 1.0, 21.0, 31.0, 3.0]  # z is the number of the PNG, both ends included
    assert lesion["boxes"] == [[z, 3.0, 4.0, 21.0, 31.0] for z in (1, 2, 3)]
    assert annotated(tmp_path, LENS_FILE, partial(released.read_lens_set, part="test"))[0]["lesions"] == []


@pytest.mark.parametrize("suffix", ["", ".annot"])
def test_revised_set(tmp_path, suffix):
    write_marks(tmp_path, [mark()])
    path = tmp_path / "DeepLesion" / "annotations" / "Revised-Train100.pkl"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps({NAME + suffix: {3: [[16.0, 21.0, 46.0, 41.0, 3.0, 3.0]]}}, protocol=2))
    (record,) = annotated(tmp_path, path.name, released.read_revised)
    (lesion,) = record["lesions"]
    assert lesion["boxes"] == [[3, 15.0, 20.0, 46.0, 41.0]]
    assert (lesion["key_slice"], lesion["box3d"]) == (3, None)
    path.write_bytes(pickle.dumps({NAME: {3: [[-3.0, 60.0, 20.0, 69.0, 3.0, 3.0]]}}, protocol=2))
    (record,) = annotated(tmp_path, path.name, released.read_revised)
    assert record["lesions"][0]["boxes"] == [[3, 0.0, 59.0, 20.0, 64.0]]  # cut, as the margins of marks are


def test_3d_boxes_half_a_slice_outside(tmp_path):
    write_marks(tmp_path, [mark()])
    path = tmp_path / "DeepLesion" / "annotations" / "3D-Box.pkl"
    path.parent.mkdir()
    inside = [[2.0, 3.0, 9.5, 10.5, -0.5, 0.5], [2.0, 3.0, 9.5, 10.5, 5.5, 6.5], [2.0, 3.0, 9.5, 10.5, 2.3, 2.6]]
    path.write_bytes(pickle.dumps({NAME: inside}))
    (record,) = annotated(tmp_path, path.name, released.read_boxes3d)
    assert [lesion["box3d"] for lesion in record["lesions"]] == [
        [1.0, 2.0, -0.5, 9.5, 10.5, 0.5],
        [1.0, 2.0, 5.5, 9.5, 10.5, 6.5],
        [1.0, 2.0, 2.3, 9.5, 10.5, 2.6],
    ]
    assert [[box[0] for box in lesion["boxes"]] for lesion in record["lesions"]] == [[0], [6], [2]]
    path.write_bytes(pickle.dumps({NAME: [[2.0, 3.0, 9.5, 10.5, 5.0, 7.5]]}))
    faults = Faults()
    assert annotated(tmp_path, path.name, released.read_boxes3d, faults) == []
    assert str(faults[NAME]) == f"{path}: {NAME}: a 3D box on the slices 5 to 7.5 of 7"


def test_annotated_volumes_that_the_table_does_not_know(tmp_path):
    """A sub-volume of a known series takes its geometry from there; a series that is not known is a fault."""
    write_marks(tmp_path, [mark()])
    other = "000001_02_03_020-024"
    path = tmp_path / "DeepLesion" / "annotations" / "Revised-Train744.pkl"
    box = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    released.write_revised(path, {other: box, "000009_01_01_001-003": box})
    faults = Faults()
    (record,) = annotated(tmp_path, path.name, released.read_revised, faults)
    assert (record["volume"], record["first_slice"], record["num_slices"]) == (other, 20, 5)
    assert record["spacing"] == [0.8, 0.8, 5.0]
    assert str(faults["000009_01_01_001-003"]).endswith("DL_info.csv has no such series")


@settings(deadline=None, max_examples=60)
@given(texts=st.dictionaries(st.sampled_from(list(MARK)), st.text(st.characters(codec="ascii"), max_size=30)))
def test_any_text_in_a_row_gives_an_error_or_a_sound_record(tmp_path_factory, texts):
    root = tmp_path_factory.getbasetemp() / "any_text"
    texts = {
        column: text.replace("\r", " ").replace("\n", " ").replace("\0", " ") for column, text in texts.items()
    }
    faults = Faults()
    for record in marked(root, {**MARK, **texts}, faults=faults):
        check_record(record)
    assert all(isinstance(error, DataError) for error in faults.values())
