"""The preparation finishes what is sound, lists what is not, and says so with its exit status."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from helpers.dataset_files import mark, write_dicom, write_image, write_marks, write_slices, write_table
from helpers.processes import SERVER

from lens_d2.commands import main
from lens_d2.commands.prepare import datasets_of
from lens_d2.config import load_config
from lens_d2.data.datasets import register_all
from lens_d2.data.datasets.catalog import default_root
from lens_d2.data.datasets.luna import COLUMNS
from lens_d2.io import parallel


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """The command, called in this process on datasets below ``tmp_path``."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    yield lambda *args, processes=1: main(["prepare", "--root", str(tmp_path), "--workers", str(processes), *args])
    monkeypatch.undo()
    register_all(default_root())


def cohort(root):
    """Four sub-volumes of DeepLesion, two LUNA scans, all sound."""
    write_marks(root, [mark(f"00000{n}_01_01") for n in range(1, 5)])
    for n in range(1, 5):
        write_slices(root, f"00000{n}_01_01", range(10, 17))
    rows = [dict(zip(COLUMNS, ("1.1", 10, 10, 5, 6), strict=True))]
    write_table(root / "LUNA16" / "annotations.csv", rows)
    for name in ("1.1", "1.2"):
        write_image(root / "LUNA16" / "subset0" / f"{name}.mhd", np.zeros((10, 20, 30), dtype=np.int16))


def test_all_sound(tmp_path, prepare, capsys):
    cohort(tmp_path)
    assert prepare("deeplesion_train", "luna_train", "luna_val") == 0
    output = capsys.readouterr().out
    assert "deeplesion_train: 4 sub-volumes ready, 0 left out" in output
    assert len(list((tmp_path / "cache").glob("*.b2nd"))) == 6
    assert not (tmp_path / "cache" / "left_out").exists()


def test_everything_that_is_wrong_is_listed_and_the_rest_is_done(tmp_path, prepare, capsys):
    cohort(tmp_path)
    images = tmp_path / "DeepLesion" / "Images_png"
    (images / "000001_01_01" / "012.png").unlink()  # the key slice
    (images / "000002_01_01" / "014.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    rows = [mark(f"00000{n}_01_01") for n in (1, 2, 3)] + [mark("000004_01_01", Bounding_boxes="1, 2, nan, 4")]
    write_marks(tmp_path, [*rows, mark("000005_01_01", Image_size="512, 512")])
    write_slices(tmp_path, "000005_01_01", range(10, 17))
    (tmp_path / "LUNA16" / "subset0" / "1.2.raw").unlink()
    assert prepare("deeplesion_train", "luna_train", "luna_val", "lits_val") == 1
    output = capsys.readouterr().out
    assert "deeplesion_train: 1 sub-volumes ready, 4 left out" in output
    assert "000005_01_01: 64 x 64 x 7 voxels, but the annotations are for 512 x 512 x 7" in output
    assert "000001_01_01: missing slices: 012.png" in output
    assert "014.png: " in output
    assert "DL_info.csv, line 5: " in output and "Bounding_boxes is missing or not a number" in output
    assert "1.2: " in output and "1.2.raw" in output
    assert "lits_val: not usable" in output and "LiTS: no volume-N.nii" in output
    assert len(list((tmp_path / "cache").glob("*.b2nd"))) == 3
    listed = json.loads((tmp_path / "cache" / "left_out" / "deeplesion_train.json").read_text())
    assert list(listed) == ["DL_info.csv, line 5", *(f"00000{n}_01_01_010-016" for n in (1, 2, 5))]
    assert [r["volume"] for r in DatasetCatalog.get("deeplesion_train")] == ["000003_01_01_010-016"]


def test_what_is_odd_is_used_and_listed(tmp_path, prepare, capsys, caplog):
    """CT without its intercept; a mask whose header contradicts that of its series."""
    rng = np.random.default_rng(0)
    array = np.where(rng.random((10, 20, 30)) < 0.5, 24, 1064) + rng.normal(0, 10, (10, 20, 30))
    write_image(tmp_path / "LUNA16" / "subset0" / "1.1.mhd", array.astype(np.int16))
    write_image(tmp_path / "LUNA16" / "subset0" / "1.2.mhd", (array - 1024).astype(np.int16))
    write_table(tmp_path / "LUNA16" / "annotations.csv", [dict(zip(COLUMNS, ("1.1", 10, 10, 5, 6), strict=True))])
    for patient, origin in (("MED_1", (0, 0, 0)), ("MED_2", (0, 0, 80))):
        folder = tmp_path / "NIH-LN"
        write_dicom(folder / "DICOM" / patient / "study" / "series", (array - 1024).astype(np.int16))
        mask = (array > 1064).astype(np.uint8)
        write_image(folder / "masks" / patient / "mask.nii.gz", mask, (1, 1, 2), origin=origin)
    names = ("luna_train", "luna_val", "nih_ln_train", "nih_ln_val")
    for _ in range(2):  # from the index and the cache the second time
        assert prepare(*names) == 0
        output = capsys.readouterr().out
        assert output.count("1 warned of") == 2 and output.count(": warning: ") == 2
        assert "1.1: warning: " in output and "as if 1024 had been added" in output
        assert "MED_2: warning: by its header the mask lies up to 80 mm off its CT" in output
    lists = [json.loads(path.read_text()) for path in sorted((tmp_path / "cache" / "warned_of").iterdir())]
    assert {entry for warned in lists for entry in warned} == {"1.1", "MED_2"}
    with caplog.at_level("WARNING"):
        assert sum(len(DatasetCatalog.get(name)) for name in names) == 4
    assert sum("prepare_datasets.py warned of 1 sub-volumes" in text for text in caplog.messages) == 2
    write_image(tmp_path / "LUNA16" / "subset0" / "1.1.mhd", (array - 1024).astype(np.int16))
    write_image(tmp_path / "NIH-LN" / "masks" / "MED_2" / "mask.nii.gz", mask, (1, 1, 2))
    assert prepare(*names) == 0
    assert "warned of" not in capsys.readouterr().out
    assert not list((tmp_path / "cache" / "warned_of").iterdir())


def test_what_is_repaired_comes_back(tmp_path, prepare):
    cohort(tmp_path)
    path = tmp_path / "DeepLesion" / "Images_png" / "000001_01_01" / "012.png"
    content = path.read_bytes()
    path.unlink()
    assert prepare("deeplesion_train") == 1
    assert len(DatasetCatalog.get("deeplesion_train")) == 3
    path.write_bytes(content)
    assert prepare("deeplesion_train") == 0
    assert len(DatasetCatalog.get("deeplesion_train")) == 4


def test_a_slice_beside_the_lesions_may_not_exist(tmp_path, prepare, caplog):
    cohort(tmp_path)
    (tmp_path / "DeepLesion" / "Images_png" / "000001_01_01" / "013.png").unlink()
    with caplog.at_level("WARNING"):
        assert prepare("deeplesion_train") == 0
    assert "1 slices of 1 sub-volumes do not exist" in caplog.text
    listed = json.loads((tmp_path / "cache/warned_of/deeplesion_train.json").read_text())
    assert "1 of 7 slices do not exist, the nearest ones stand in for them" in listed["000001_01_01_010-016"]
    assert "do not exist" not in listed["000002_01_01_010-016"]
    records = {record["volume"]: record for record in DatasetCatalog.get("deeplesion_train")}
    assert records["000001_01_01_010-016"]["missing_slices"] == [3]
    assert "missing_slices" not in records["000002_01_01_010-016"]


def test_sweep_removes_what_nothing_reads(tmp_path, prepare, capsys):
    cohort(tmp_path)
    cache = tmp_path / "cache"
    config = tmp_path / "config.yaml"
    config.write_text("DATASETS:\n  TRAIN: ('deeplesion_train',)\n  TEST: ()\nINPUT:\n  PIXEL_SPACING: 1.0\n")
    prepare("--config-file", str(config))
    prepare("deeplesion_train", "luna_train", "luna_val")
    assert len(list(cache.glob("*.b2nd"))) == 10  # nothing goes unless asked for
    write_slices(tmp_path, "000001_01_01", range(10, 17), size=60)
    (cache / "cut.b2nd").write_bytes(b"cut")
    (cache / ".new.tmp.b2nd").write_bytes(b"a process is at it")
    capsys.readouterr()
    prepare("luna_train", "--sweep")
    output = capsys.readouterr().out
    counts = [output.count(f"({reason})") for reason in ("other parameters", "its source has changed", "damaged")]
    assert counts == [4, 1, 1] and " MB freed" in output
    assert len(list(cache.glob("[!.]*.b2nd"))) == 5 and (cache / ".new.tmp.b2nd").exists()


def test_datasets_of_a_config_file(tmp_path, prepare, capsys):
    cohort(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("DATASETS:\n  TRAIN: ('deeplesion_train',)\n  TEST: ()\nINPUT:\n  PIXEL_SPACING: 1.0\n")
    assert prepare("--config-file", str(config), "--cache-dir", str(tmp_path / "elsewhere")) == 0
    assert len(list((tmp_path / "elsewhere").glob("*.b2nd"))) == 4


def test_two_processes(tmp_path, prepare, capfd, caplog, monkeypatch):
    monkeypatch.setattr(parallel, "multiprocessing", SimpleNamespace(get_context=lambda start: SERVER))
    cohort(tmp_path)
    (tmp_path / "DeepLesion" / "Images_png" / "000001_01_01" / "012.png").unlink()
    assert prepare("deeplesion_train", processes=2) == 1
    output = capfd.readouterr()
    assert "3 sub-volumes ready, 1 left out" in output.out
    assert "4 of 4" in output.err + caplog.text and "Traceback" not in output.err


def test_all_real_datasets_without_a_name(tmp_path, prepare, capsys):
    cohort(tmp_path)
    assert prepare() == 1
    output = capsys.readouterr().out
    assert "deeplesion_train: 4 sub-volumes ready" in output and "nih_ln_val: not usable" in output
    assert "phantom" not in output


def test_names_that_do_not_exist(tmp_path, prepare, capsys):
    assert prepare("deeplesion") == 2
    assert capsys.readouterr().err.startswith("NAME: no dataset deeplesion; did you mean deeplesion_")
    config = tmp_path / "config.yaml"
    config.write_text("DATASETS:\n  TRAIN: ('luna',)\n")
    assert prepare("--config-file", str(config)) == 2
    assert capsys.readouterr().err == f"{config}: no dataset luna; did you mean luna_val?\n"


@pytest.mark.parametrize(
    ("config", "further"),
    [
        ("phantom/lens_multi.yaml", set()),
        ("phantom/lens_best.yaml", {"phantom_deeplesion_vm"}),
        ("phantom/harvester.yaml", {"phantom_deeplesion_vh_test"}),
    ],
)
def test_what_mining_and_harvesting_measure_with_is_prepared_too(config, further):
    cfg = load_config(config)
    assert {*datasets_of(cfg)} - {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} == further
