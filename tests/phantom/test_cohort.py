"""Writing a cohort: the released layouts, independence of workers and of other scans, nothing half."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.phantom_cohort import PLAN

from lens_d2.io.errors import DataError
from lens_d2.io.formats import read_boxes3d, read_lens_set, read_revised
from lens_d2.phantom import cohort as cohort_module
from lens_d2.phantom.cohort import write_cohort


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_released_layouts_hold_the_full_truth(root, truth):
    folder = root / "DeepLesion/annotations"
    file = folder / "DeepLesion_manual_1K_test_release.pkl"
    lens = {split: read_lens_set(file, split) for split in ("val", "test")}
    for split, volumes in lens.items():
        assert volumes.keys() == {n for n, e in truth.items() if e.get("split") == split}
        for name, boxes in volumes.items():
            np.testing.assert_allclose(boxes, [x["box3d"] for x in truth[name]["lesions"]], atol=1e-6)
    attributes = pd.read_csv(folder / "lens_1k_attributes.csv")
    assert len(attributes) == sum(len(b) for v in lens.values() for b in v.values())
    sets = {f: read_revised(folder / f"Revised-{f}.pkl") for f in ("Train744", "Train100", "Test1071")}
    for volumes in sets.values():
        assert volumes
        for name, table in volumes.items():
            assert len(table) == len(truth[name]["lesions"])
    training = [{name.split("_")[0] for name in sets[f]} for f in ("Train744", "Train100")]
    assert not training[0] & training[1]
    for name, boxes in read_boxes3d(folder / "3D-Box.pkl").items():
        np.testing.assert_allclose(boxes, [x["box3d"] for x in truth[name]["lesions"]], atol=1e-6)


def test_a_scan_depends_neither_on_the_workers_nor_on_how_many_others_there_are(root, truth, tmp_path):
    write_cohort(PLAN.with_changes(train=1, test=1, luna=1, lits=1, nih_ln=1), tmp_path / "two", workers=2)
    smaller, larger = digest(tmp_path / "two"), digest(root)
    scans = [name for name in smaller if Path(name).suffix in (".raw", ".nii", ".dcm") or "/000001_" in name]
    assert len(scans) > 50
    assert all(smaller[name] == larger[name] for name in scans)
    others = json.loads((tmp_path / "two/hidden_truth.json").read_text())["volumes"]
    same = [
        name for name, entry in others.items() if entry["patient"] == "000001" or entry["dataset"] != "deeplesion"
    ]
    assert same and all(others[name] == truth[name] for name in same)
    tables = [pd.read_csv(folder / "DeepLesion/DL_info.csv") for folder in (root, tmp_path / "two")]
    one, two = (table[table.Patient_index == 1] for table in tables)
    assert len(one) and one.equals(two)


def test_other_folders_are_not_overwritten(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        write_cohort(PLAN, tmp_path)
    with pytest.raises(DataError, match="no synthetic cohort"):
        write_cohort(PLAN, tmp_path, overwrite=True)
    (tmp_path / cohort_module.MANIFEST).write_text("{}")
    with pytest.raises(DataError, match="is not the cohort's and would be lost"):
        write_cohort(PLAN, tmp_path, overwrite=True)
    assert (tmp_path / "precious").read_text() == "x"


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort_module, "_run_jobs", stop)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(PLAN, tmp_path / "phantom")
    assert not list(tmp_path.iterdir())
