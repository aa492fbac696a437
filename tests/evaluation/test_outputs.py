"""Collection of outputs: of all ranks, the model's own first."""

import pytest
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from lens_d2.evaluation.outputs import OutputsEvaluator
from lens_d2.structures.detections import VolumeDetections


class Kept(OutputsEvaluator):
    def to_entry(self, detections, record):
        return record["first_slice"]

    def evaluate_outputs(self, records, outputs):
        return {"records": records, "outputs": outputs}


@pytest.fixture
def records(monkeypatch):
    records = [{"volume": name, "first_slice": number} for number, name in enumerate("ab")]
    monkeypatch.setitem(DatasetCatalog.data, "kept", lambda: records)
    return records


def output(volume, *names):
    return {"volume": volume, "detections": {name: VolumeDetections() for name in names}}


def test_the_models_own_output_is_first(records):
    evaluator = Kept("kept", output="luna")
    evaluator.process(records, [output("a", "fused", "lits", "luna"), output("b", "fused", "lits", "luna")])
    found = evaluator.evaluate()
    assert found["records"] is records
    assert list(found["outputs"]) == ["luna", "fused", "lits"] and found["outputs"]["lits"] == {"a": 0, "b": 1}
    evaluator.reset()
    evaluator.process(records[:1], [output("a", "deeplesion")])
    assert list(evaluator.evaluate()["outputs"]) == ["deeplesion"]  # there is no such output


def test_the_outputs_of_all_ranks(records, monkeypatch):
    evaluator = Kept("kept")
    evaluator.process(records[:1], [output("a", "fused")])
    monkeypatch.setattr(comm, "gather", lambda entries, dst: [entries, {"fused": {"b": 1}}])
    assert evaluator.evaluate()["outputs"] == {"fused": {"a": 0, "b": 1}}
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert evaluator.evaluate() is None


def test_without_outputs_there_is_no_result(records, caplog):
    assert Kept("kept").evaluate() == {}
    assert "kept: nothing was given to Kept" in caplog.text
