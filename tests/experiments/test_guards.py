"""The guards: what their detectors are trained on, and what is made of the results."""

import json
import runpy

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.mined_ledger import LESION
from helpers.mining_proposals import record

from experiments import guards, runs
from experiments.__main__ import main


@pytest.fixture
def universal(tmp_path, monkeypatch):
    """Three patients with a mark each, and two lesions each in the hidden truth."""
    records = [record(f"00000{number}_01_01", lesions=[(5, LESION)]) for number in (3, 1, 2)]
    box = [5, *map(float, LESION)]
    lesion = {"boxes": [box, [6, *box[1:]]], "box3d": [10, 10, 5, 30, 30, 6], "type": "lung"}
    hidden = {each["volume"]: {"lesions": [lesion, lesion]} for each in records}
    (tmp_path / "hidden_truth.json").write_text(json.dumps({"volumes": hidden}))
    monkeypatch.setattr(guards, "UNIVERSAL", "guards_universal")
    DatasetCatalog.register("guards_universal", lambda: records)
    MetadataCatalog.get("guards_universal").set(root=str(tmp_path), expert="deeplesion", fully_labelled=False)
    yield records
    for name in ("guards_universal", guards.PARTIAL, guards.FULL):
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog.list():
                catalog.remove(name)


def test_marks_or_the_hidden_truth_of_the_first_patients(universal):
    guards.register(patients=2)
    marked, full = (DatasetCatalog.get(name) for name in (guards.PARTIAL, guards.FULL))
    assert marked == universal[1:]
    assert [each["volume"] for each in full] == [each["volume"] for each in marked]
    assert [[len(x["boxes"]) for x in each["lesions"]] for each in full] == [[2, 2]] * 2
    labelled = [MetadataCatalog.get(name).fully_labelled for name in (guards.PARTIAL, guards.FULL)]
    assert labelled == [False, True]


def test_labels_are_registered_where_lens_is_trained_and_what_is_done_is_not_done_again(
    universal, tmp_path, monkeypatch, capsys
):
    trained = []

    def call(script, *words):
        opts = dict(zip(words[3::2], words[4::2], strict=True))
        trained.append(opts["DATASETS.TRAIN"][0])
        runpy.run_path(opts["DATASETS.READERS"][0])  # as train_net.py does
        assert len(DatasetCatalog.get(opts["DATASETS.TRAIN"][0])) == 1
        tested = opts["OUTPUT_DIR"] / "inference" / guards.TEST
        tested.mkdir(parents=True)
        value = 0.5 if opts["DATASETS.TRAIN"][0] == guards.FULL else 0.4
        (tested / "metrics.json").write_text(json.dumps({"average_sensitivity": value}))

    monkeypatch.setattr(runs, "call", call)
    monkeypatch.setattr(guards, "blob_detector", lambda folder: 0.1)
    words = ["guards", "--seeds", "1", "2", "--patients", "1", "--output", str(tmp_path / "out"), "--others", "--"]
    for _ in range(2):
        assert main(words) == 0
    assert trained == [guards.PARTIAL] * 2 + [guards.FULL] * 2
    mean = json.loads((tmp_path / "out/results.json").read_text())["mean"]
    assert mean == {"blob detector": 0.1, "LENS, partial labels": 0.4, "LENS, hidden full truth": 0.5}
    assert "seed 2" in capsys.readouterr().out
