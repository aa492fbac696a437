"""The evaluators of a dataset are those that its metadata ask for."""

import json

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from helpers.mining_proposals import record, tracklets

from lens_d2 import add_lens_config
from lens_d2.engine.evaluation import build_evaluator

BOX = np.array([100.0, 120, 140, 160])


@pytest.fixture
def records():
    """A sub-volume with a lesion on three slices."""
    marked = record(lesions=[(5, BOX)], size=512)
    boxes = [[z, *BOX.tolist()] for z in (4, 5, 6)]
    marked["lesions"][0].update(boxes=boxes, box3d=[100.0, 120.0, 4, 140.0, 160.0, 6])
    return [marked]


@pytest.fixture
def register(records):
    names = []

    def add(evaluator_type):
        names.append(f"evaluated_{len(names)}")
        DatasetCatalog.register(names[-1], lambda: records)
        MetadataCatalog.get(names[-1]).set(
            thing_classes=["lesion"], expert="deeplesion", fully_labelled=True, evaluator_type=evaluator_type,
            truth_is_3d=True, dataset="any",
        )  # fmt: skip
        return names[-1]

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_suite_of_a_dataset(records, register, tmp_path):
    """Several protocols at once, each under its own key, chosen by the metadata; one metrics.json for all."""
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.OUTPUT_DIR, cfg.TEST.OVERLAYS = str(tmp_path), 0
    name = register(["lens3d", "p3d"])
    suite = build_evaluator(cfg, name)
    assert isinstance(suite, DatasetEvaluators)
    suite.reset()
    found = tracklets((4, BOX, [0.8, 0.9, 0.8]))
    suite.process(records, [{"volume": records[0]["volume"], "detections": {"fused": found, "lits": tracklets()}}])
    results = suite.evaluate()
    assert set(results) == {"lens3d", "p3d", "bbox"}
    folder = tmp_path / "inference" / name
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["protocol"] == "lens3d" and metrics["average_sensitivity"] == 1.0
    assert metrics["p3d"]["ap"] == 1.0 and metrics["slice_ap"]["AP50"] == pytest.approx(100)
    assert (folder / "p3d/predictions.json").is_file() and (folder / "predictions_lits.json").is_file()
    with pytest.raises(KeyError, match="no evaluator 'absent'"):
        build_evaluator(cfg, register("absent"))
