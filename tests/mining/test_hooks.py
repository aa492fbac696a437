"""Mining as hooks of the trainer: faults in the settings show before the training."""

import pytest
from detectron2.data import DatasetCatalog
from helpers.kills import kill_at
from helpers.mining_cohort import mining_cfg, register_partly

from lens_d2.data.datasets.catalog import register_derived
from lens_d2.engine import LENSTrainer
from lens_d2.io.errors import DataError
from lens_d2.mining.lens import mine
from lens_d2.structures.records import make_lesion


@pytest.fixture
def data(tmp_path):
    register_partly(tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize(
    ("opts", "error"),
    [
        (("MINING.STRATEGIES", ("CrosSlice",)), "CrosSlice"),
        (("MINING.CALIBRATION.DATASET", "blocks_lits"), "no sub-volume of blocks_lits is mined"),
        (("DATASETS.TRAIN", ("blocks_luna",)), "no dataset is partially labelled, and MINING.DATASETS names none"),
        (("MINING.DATASETS", ("blocks_luna",)), "MINING.DATASETS: blocks_luna is fully labelled"),
    ],
)
def test_what_cannot_be_mined_is_told_before_training(data, monkeypatch, opts, error):
    steps = kill_at(monkeypatch, LENSTrainer, "run_step")
    with pytest.raises((KeyError, DataError), match=error):
        LENSTrainer(mining_cfg(data, *opts)).train()
    assert steps == []


def test_names_that_a_ledger_could_confuse_are_told_before_training(data, monkeypatch):
    name = DatasetCatalog.get("blocks_deeplesion")[0]["volume"]
    records = [{**record, "volume": name} for record in DatasetCatalog.get("blocks_luna")[:1]]
    register_derived("blocks_same", "blocks_luna", lambda: records)
    with pytest.raises(DataError, match=f"{name}: a sub-volume of deeplesion and one of luna have this name"):
        LENSTrainer(mining_cfg(data, "DATASETS.TRAIN", ("blocks_deeplesion", "blocks_same")))


def test_another_seed_or_another_v_m_is_another_mining(data, monkeypatch):
    monkeypatch.setattr(mine, "mine", lambda *args, settings, **kwargs: settings)
    monkeypatch.setattr(mine.Calibration, "verified", lambda self, records: None)
    records = [{"volume": "a", "lesions": []}]
    monkeypatch.setitem(DatasetCatalog.data, "own_vm", lambda: records)

    def settings(*opts):
        return mine.MiningRound(mining_cfg(data, "MINING.CALIBRATION.DATASET", "own_vm", *opts)).mine(None)

    first = settings("SEED", 1)
    assert first == settings("SEED", 1) != settings("SEED", 2)
    records[0] = {"volume": "a", "lesions": [make_lesion("a/1", [(3, 1, 1, 5, 5)])]}
    assert settings("SEED", 1) != first
