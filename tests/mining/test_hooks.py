"""Mining as hooks of the trainer: faults in the settings show before the training."""

import pytest
from helpers.kills import kill_at
from helpers.mining_cohort import mining_cfg, register_partly

from lens_d2.engine import LENSTrainer
from lens_d2.io.errors import DataError


@pytest.fixture
def data(tmp_path):
    register_partly(tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize(
    ("opts", "error"),
    [
        (("MINING.STRATEGIES", ("CrosSlice",)), "CrosSlice"),
        (("DATASETS.TRAIN", ("blocks_luna",)), "no dataset is partially labelled, and MINING.DATASETS names none"),
    ],
)
def test_what_cannot_be_mined_is_told_before_training(data, monkeypatch, opts, error):
    steps = kill_at(monkeypatch, LENSTrainer, "run_step")
    with pytest.raises((KeyError, DataError), match=error):
        LENSTrainer(mining_cfg(data, *opts)).train()
    assert steps == []
