"""The universal training set with the hidden truth in the place of its marks."""

import importlib
import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.mined_ledger import LESION
from helpers.mining_proposals import record

from experiments.reproduce import hidden_truth


@pytest.fixture
def universal(tmp_path, monkeypatch):
    """A sub-volume with a mark, and two lesions in the hidden truth."""
    records = [record("000001_01_01", lesions=[(5, LESION)])]
    box = list(map(float, LESION))
    lesion = {"boxes": [[5, *box], [6, *box]], "box3d": [10, 10, 5, 30, 30, 6], "type": "lung"}
    lesion |= {"key_slice": 6, "key_box": box}
    hidden = {records[0]["volume"]: {"lesions": [lesion, lesion]}}
    (tmp_path / "hidden_truth.json").write_text(json.dumps({"volumes": hidden}))
    importlib.reload(hidden_truth)  # another test may have run it as a file of DATASETS.READERS
    monkeypatch.setattr(hidden_truth, "UNIVERSAL", "hidden_universal")
    DatasetCatalog.register("hidden_universal", lambda: records)
    MetadataCatalog.get("hidden_universal").set(root=str(tmp_path))
    yield
    DatasetCatalog.remove("hidden_universal")
    MetadataCatalog.remove("hidden_universal")


def test_all_lesions_on_their_key_slices_or_on_all(universal):
    for name, slices, key in ((hidden_truth.KEY_TRUTH, [6], 6), (hidden_truth.FULL_TRUTH, [5, 6], None)):
        (record,) = DatasetCatalog.get(name)
        assert [[box[0] for box in lesion["boxes"]] for lesion in record["lesions"]] == [slices] * 2
        assert [lesion["key_slice"] for lesion in record["lesions"]] == [key] * 2


def test_only_the_full_truth_has_negative_slices():
    names = (hidden_truth.KEY_TRUTH, hidden_truth.FULL_TRUTH)
    assert [MetadataCatalog.get(name).fully_labelled for name in names] == [False, True]
