"""Released files are read and written in their own numbers and in the program's; others are refused by name."""

import gzip
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.io import formats as released
from lens_d2.io.errors import DataError
from lens_d2.io.formats import HARVESTER, LENS, FileFrame

NAME = "000001_02_03_010-016"


def read_lens_parts(path):
    return {part: released.read_lens_set(path, part) for part in ("val", "test")}


def test_file_frames():
    boxes = np.array([[10.0, 20, 3, 30, 40, 5], [7, 7, 0, 7.5, 7.5, 0]])
    assert FileFrame().to_file(boxes, 31).tolist() == [[10, 20, 34, 29, 39, 36], [7, 7, 31, 7, 7, 31]]
    assert FileFrame(1, False).to_file(boxes[:1, [0, 1, 3, 4]], 31).tolist() == [[11, 21, 30, 40]]


@pytest.mark.parametrize("frame", [LENS, HARVESTER])
def test_frames_map_there_and_back(frame):
    boxes = np.array([[10.25, 20, 3, 30, 40, 5], [0, 0, 0, 1, 1, 0]])
    rows = np.array([[3, 10.25, 20, 30, 40, 0.5]])
    assert frame.to_volume(frame.to_file(boxes, 31), 31).tolist() == boxes.tolist()
    assert frame.slice_boxes_to_volume(frame.slice_boxes_to_file(rows, 31), 31).tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 2], "a table of volumes belongs"),
        ({"../escape": {}}, "'../escape' is not the name of a sub-volume"),
        ({NAME: {1: [[1, 2, 3, 4, 5]]}}, "slice 1, lesion 0: 6 numbers belong here"),
        ({NAME: {1: [["a"] * 6]}}, "lesion 0: 'a' is not a number"),
        ({NAME: {1: [[1, 2, 3, float("nan"), 1, 1]]}}, "lesion 0: the coordinate y2 is nan"),
        ({NAME: {1: [[1, 2, 3, 4, 2, 2]]}}, "on another slice"),
        *(
            ({NAME: {key: []}}, f"{key!r} is not the number of a slice")
            for key in ("x", "nan", "inf", "1e999", "2.5", "2_0", 2.5, True)
        ),
        ({NAME: {10**5000: []}}, "an integer of more than 18 digits is not the number of a slice"),
        ({NAME: {1: [[1, 2, 3, 10**400, 1, 1]]}}, "lesion 0: an integer of more than 18 digits, too large"),
        ({NAME: {1: [[1, 2, 3, 1e308, 1, 1]]}}, "lesion 0: the coordinate y2 is 1e+308, too large"),
        ({NAME: 3}, "a table of slices belongs here, not a value of type int"),
    ],
)
def test_released_files_of_another_form(tmp_path, content, expected):
    path = tmp_path / "Revised-Train100.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError) as error:
        released.read_revised(path)
    assert str(error.value).startswith(f"{path}: ") and expected in str(error.value)


@pytest.mark.parametrize(
    ("read", "write", "name"),
    [
        (released.read_revised, released.write_revised, "Revised-Train100"),
        (released.read_boxes3d, released.write_boxes3d, "3D-Box"),
        (read_lens_parts, released.write_lens_set, "DeepLesion_manual_1K_test_release"),
    ],
)
def test_released_files_are_written_as_they_were_read(shared_dir, tmp_path, read, write, name):
    source = shared_dir / "annotations" / "deeplesion" / f"{name}.pkl"
    write(tmp_path / "copy.pkl", read(source))
    ours, theirs = (pickle.loads(path.read_bytes()) for path in (tmp_path / "copy.pkl", source))
    assert_same(ours, theirs)


def assert_same(ours, theirs):
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    else:
        assert type(ours) is type(theirs)
        np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_released_files_give_an_error_or_boxes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    released.write_lens_set(path, {"val": {NAME: [[1, 2, 0, 30, 40, 3]]}, "test": {}})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        tables = released.read_lens_set(path, "val")
    except DataError as error:
        assert error.path == str(path)
    else:
        assert all(table.shape[1] == 6 for table in tables.values())


def test_tracklets_are_counted_as_in_the_released_files(tmp_path):
    """Pixels 1 to 10 and 6 to 15, both ends included and counted from 1, are the edges 0 to 10 and 5 to 15."""
    name = "000001_01_01_003-010"
    released.write_tracklets(
        tmp_path / "a.pkl", {name: [np.array([[2, 0, 5, 10, 15, 0.5]])], "000001_01_01_011-020": []}
    )
    content = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert content == {name: [[(2, [1.0, 6.0, 10.0, 15.0, 0.5])]], "000001_01_01_011-020": []}
    again = released.read_tracklets(tmp_path / "a.pkl")
    assert again[name][0].tolist() == [[2, 0, 5, 10, 15, 0.5]]
    for wrong, fault in (
        ({name: 3}, "a list of detections"),
        ({name: [[[1]]]}, "detection 0: a list of"),
        ({name: [[1, 2, 3, 4, 5, 6, 0.5]]}, "a 3D box, where boxes on slices belong"),
        ({"x": []}, "'x' is not the name"),
    ):
        (tmp_path / "b.pkl").write_bytes(pickle.dumps(wrong))
        with pytest.raises(DataError, match=fault):
            released.read_tracklets(tmp_path / "b.pkl")


def test_entries_are_parsed_in_their_own_numbers():
    boxes = [[1, 2, 3, 4, 0.5, 6]]
    assert released.parse_boxes3d("f", NAME, boxes).tolist() == boxes
    assert released.parse_boxes3d("f", NAME, boxes, HARVESTER).tolist() == [[1, 2, 0.5, 3, 4, 6]]
    assert released.parse_boxes3d("f", NAME, np.array(boxes)[:, HARVESTER.order3d]).shape == (1, 6)
    rows = np.array([[3.0, 1, 2, 3, 4], [3, 5, 6, 7, 8], [9, 1, 2, 3, 4]])
    assert released.parse_marks("f", NAME, released.marks_entry(rows)).tolist() == rows.tolist()
    assert released.parse_marks("f", NAME, {"3": [[1, 2, 3, 4]]}).tolist() == [[3, 1, 2, 3, 4]]
    tracklet = np.array([[3, 1, 2, 3, 4, 0.5], [4, 1, 2, 3, 4, 0.25]])
    whole = [1, 2, 3, 4, 5, 6, 0.5]
    found = released.parse_tracklets("f", NAME, [released.tracklet_entry(tracklet), whole])
    assert [part.tolist() for part in found] == [tracklet.tolist(), whole]
    for value, fault in (("7", "'7' is not a number"), (True, "True is not a number"), (10**400, "too large")):
        with pytest.raises(DataError, match=f"detection 0, box 1: .*{fault}"):
            released.parse_tracklets("f", NAME, [[(3, [1, 2, 3, 4, 0.5]), (4, [1, 2, 3, value, 0.5])]])


@pytest.mark.parametrize("name", ["a.json.gz", "a.pkl.gz", "a.json", "a.pkl"])
def test_packed_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match=f"{name}: packed by gzip: unpack it"):
        released.read_volumes(tmp_path / name)


def test_a_file_without_splits(tmp_path, caplog):
    path = tmp_path / "flat.json"
    path.write_text(f'{{"{NAME}": []}}')
    assert released.read_volumes(path, "val", "optional") == {NAME: []} and not caplog.messages
    assert released.read_volumes(path, "val") == {NAME: []} and "no splits such as 'val'" in caplog.text
    with pytest.raises(DataError, match="flat.json: has no split 'val'"):
        released.read_lens_set(path, "val")
