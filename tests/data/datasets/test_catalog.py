"""All datasets are known to Detectron2 by name, and what a preparation has left out stays out."""

import json
import logging
import pickle
import sys

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.dataset_files import mark, write_image, write_marks, write_table
from hypothesis import given
from hypothesis import strategies as st

from lens_d2.data.datasets import catalog, register_all
from lens_d2.data.datasets.catalog import (
    DATASETS,
    LEFT_OUT,
    Dataset,
    Faults,
    default_root,
    import_readers,
    list_file,
    read_list,
    split_of,
    write_lists,
)
from lens_d2.io.errors import DataError

NAMES = {
    # name: (expert, fully labelled, 3D truth)
    "deeplesion_train": ("deeplesion", False, False),
    "deeplesion_val": ("deeplesion", False, False),
    "deeplesion_test": ("deeplesion", False, False),
    "deeplesion_1k_val": ("deeplesion", True, True),
    "deeplesion_1k_test": ("deeplesion", True, True),
    "deeplesion_vm": ("deeplesion", True, False),
    "deeplesion_vh_test": ("deeplesion", True, False),
    "deeplesion_vd_test": ("deeplesion", True, False),
    "luna_train": ("luna", True, True),
    "luna_val": ("luna", True, True),
    "lits_train": ("lits", True, True),
    "lits_val": ("lits", True, True),
    "nih_ln_train": ("nih_ln", True, True),
    "nih_ln_val": ("nih_ln", True, True),
}
VOLUME = "000001_02_03_010-016"


@pytest.fixture
def root(tmp_path):
    """The datasets are read from an empty folder during a test."""
    before = default_root()
    register_all(tmp_path)
    yield tmp_path
    register_all(before)


def test_lesions_that_stand_in_a_table_twice_are_told(root, monkeypatch):
    record = {"volume": VOLUME, "lesions": [{"boxes": [[3, 1, 1, 5, 5]]}, {"boxes": [[4, 1, 1, 5, 5]]}]}
    doubled = {"volume": "b", "lesions": record["lesions"] * 2}
    own = Dataset(name="luna_train", read=lambda *_: [record, doubled], expert="luna")
    monkeypatch.setitem(DATASETS, "luna_train", own)
    faults = Faults()
    assert len(catalog.read("luna_train", faults)) == 2
    assert faults.warnings == {"b": ["2 lesions appear twice"]}


def test_where_the_datasets_are(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert str(default_root()) == "datasets"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "phantom_"])
def test_names_and_metadata(root, name, prefix):
    assert prefix + name in DatasetCatalog
    metadata = MetadataCatalog.get(prefix + name)
    assert metadata.thing_classes == ["lesion"]
    assert (metadata.expert, metadata.fully_labelled, metadata.truth_is_3d) == NAMES[name]
    assert metadata.evaluator_type == ("lens3d" if metadata.truth_is_3d else "p3d")
    assert metadata.root == str(root / "phantom" if prefix else root)


def test_two_sub_volumes_of_one_name_are_refused(root, monkeypatch):
    """Detections and proposals are found by the name."""
    twice = [{"volume": "same", "file_name": "scan.nii", "lesions": []}] * 2
    monkeypatch.setitem(catalog.DATASETS, "luna_val", Dataset("luna_val", lambda *_: twice, "luna"))
    with pytest.raises(DataError, match="scan.nii: luna_val has a sub-volume 'same' already"):
        DatasetCatalog.get("luna_val")


def test_the_synthetic_twin_is_read_by_the_same_reader(root):
    write_marks(root, [mark()])
    write_marks(root / "phantom", [mark("000007_01_01")])
    assert [record["volume"] for record in DatasetCatalog.get("deeplesion_train")] == [VOLUME]
    (record,) = DatasetCatalog.get("phantom_deeplesion_train")
    assert record["volume"] == "000007_01_01_010-016"
    assert record["file_name"] == str(root / "phantom" / "DeepLesion" / "Images_png" / "000007_01_01")
    assert json.loads(json.dumps(record)) == record


def test_a_fault_stops_loading_until_it_is_listed_as_left_out(root, caplog):
    write_marks(root, [mark(), mark("000002_01_01", Bounding_boxes="1, 2, nan, 4"), mark("000003_01_01")])
    with pytest.raises(DataError, match=r"line 3 .*prepare_datasets.py"):
        DatasetCatalog.get("deeplesion_train")
    faults = Faults({"DL_info.csv, line 3": DataError("DL_info.csv", "bad"), VOLUME: DataError("x", "no slices")})
    write_lists("deeplesion_train", faults)
    assert read_list("deeplesion_train", LEFT_OUT)[VOLUME] == "x: no slices"
    assert read_list("phantom_deeplesion_train", LEFT_OUT) == {}
    with caplog.at_level(logging.WARNING):
        records = DatasetCatalog.get("deeplesion_train")
    assert [record["volume"] for record in records] == ["000003_01_01_010-016"]
    assert any("2 left out by prepare_datasets.py, 1 sub-volumes are used" in text for text in caplog.messages)
    write_lists("deeplesion_train", Faults())
    with pytest.raises(DataError, match="line 3"):
        DatasetCatalog.get("deeplesion_train")


def test_a_damaged_list_of_what_is_left_out(root):
    write_marks(root, [mark()])
    write_lists("deeplesion_train", Faults({VOLUME: DataError("x", "y")}))
    list_file("deeplesion_train", LEFT_OUT).write_text("{")
    with pytest.raises(DataError, match="deeplesion_train.json: not readable, delete it"):
        DatasetCatalog.get("deeplesion_train")


def test_patients_are_on_one_side_of_a_split(root):
    for name in [f"{part}-{number}.nii" for part in ("volume", "segmentation") for number in range(10)]:
        write_image(root / "LiTS" / name, np.zeros((4, 5, 6), dtype=np.int16))
    parts = [{record["patient"] for record in DatasetCatalog.get(f"lits_{part}")} for part in ("train", "val")]
    assert [len(part) for part in parts] == [8, 2] and not parts[0] & parts[1]


@given(st.sets(st.integers(0, 10**6), max_size=60), st.integers(0, 10**6))
def test_a_split_is_exact_and_hardly_moves_when_patients_are_added(numbers, another):
    before = split_of(map(str, numbers))
    sides = list(before.values())
    assert sides.count("val") == round(0.2 * len(numbers)) and len(sides) == len(numbers)
    assert split_of(map(str, sorted(numbers))) == before
    after = split_of(map(str, {*numbers, another}))
    assert sum(after[patient] != side for patient, side in before.items()) <= 1


def test_the_split_does_not_change_between_versions():
    patients = [f"MED_LYMPH_{number:03d}" for number in range(1, 16)]
    validating = {patient for patient, side in split_of(patients).items() if side == "val"}
    assert validating == {"MED_LYMPH_002", "MED_LYMPH_004", "MED_LYMPH_011"}


def test_a_table_of_other_columns_names_them(root):
    write_table(root / "DeepLesion" / "DL_info.csv", [{"File_name": "x"}])
    with pytest.raises(DataError, match="no column Key_slice_index, Measurement_coordinates"):
        DatasetCatalog.get("deeplesion_test")


@pytest.fixture
def readers():
    """Names of two datasets whose readers a test may import; they are forgotten afterwards."""
    names, before = ("kits_of_a_folder", "lits_of_a_folder"), set(sys.modules)
    yield names
    for name in names:
        DATASETS.pop(name, None)
        for catalog_, each in (
            (c, n) for c in (DatasetCatalog, MetadataCatalog) for n in (name, f"phantom_{name}")
        ):
            if each in catalog_.list():
                catalog_.remove(each)
    for module in [each for each in sys.modules if each.startswith(catalog.READER) and each not in before]:
        del sys.modules[module]


def test_readers_of_one_name_in_two_folders(tmp_path, readers):
    names = readers
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "reader.py").write_text(
            "from lens_d2.data.datasets.catalog import Dataset, register\n"
            "def read(*_):\n    return []\n"
            f"register(Dataset(name={name!r}, read=read, expert='luna'))\n"
        )
    files = [tmp_path / name / "reader.py" for name in names]
    import_readers(files)
    import_readers(files)
    functions = [DATASETS[name].read for name in names]
    assert [pickle.loads(pickle.dumps(own)) for own in functions] == functions
    (tmp_path / "third").mkdir()
    files[0].rename(tmp_path / "third" / "reader.py")
    with pytest.raises(DataError, match="a dataset of this name is registered already"):
        import_readers([tmp_path / "third" / "reader.py"])


def test_a_name_of_the_package_is_not_given_twice(tmp_path):
    reader = tmp_path / "copied_example.py"
    reader.write_text(
        "from lens_d2.data.datasets.catalog import Dataset, register\n"
        "register(Dataset(name='luna_train', read=lambda *_: [], expert='luna'))\n"
    )
    before = DATASETS["luna_train"]
    with pytest.raises(DataError, match="registered already, by lens_d2.data.datasets.luna"):
        import_readers([reader])
    reader.write_text(reader.read_text().replace("luna_train", "phantom_luna_train"))
    with pytest.raises(DataError, match="phantom_luna_train: this is the name of a synthetic twin"):
        import_readers([reader])
    assert DATASETS["luna_train"] is before and "phantom_luna_train" not in DATASETS
