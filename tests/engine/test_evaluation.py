"""A dataset's metadata choose its evaluators, which leave one metrics.json."""

import json

import pytest
from detectron2.config import get_cfg
from detectron2.evaluation import DatasetEvaluators
from helpers.evaluated import registration, scene

from lens_d2.engine.evaluation import build_evaluator
from lens_d2.io.errors import DataError


@pytest.fixture
def register():
    with registration() as add:
        yield add


def test_suite_of_a_dataset(register, tmp_path):
    """Several protocols at once, each under its own key, chosen by the metadata; one metrics.json for all."""
    from lens_d2 import add_lens_config

    records, outputs = scene()
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.OUTPUT_DIR, cfg.TEST.OVERLAYS = str(tmp_path), 0
    name = register(records, ["lens3d", "p3d"], "any")
    suite = build_evaluator(cfg, name)
    assert isinstance(suite, DatasetEvaluators)
    suite.reset()
    suite.process(records, outputs)
    results = suite.evaluate()
    assert set(results) == {"lens3d", "p3d", "bbox"}
    folder = tmp_path / "inference" / name
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["protocol"] == "lens3d" and metrics["average_sensitivity"] == 1.0
    assert metrics["p3d"]["ap"] == 1.0 and metrics["slice_ap"]["AP50"] == pytest.approx(100)
    assert (folder / "p3d/predictions.json").is_file() and (folder / "predictions_lits.json").is_file()
    with pytest.raises(DataError, match="no evaluator 'absent'"):
        build_evaluator(cfg, register(records, "absent", "any"))
