"""The five-step configurations name what there is."""

import pytest
from detectron2.config import get_cfg

from lens_d2 import add_lens_config
from lens_d2.engine import STAGES
from lens_d2.mining.lens.strategies import STRATEGIES


@pytest.mark.parametrize("name", ["configs/lens_full.yaml", "configs/phantom/lens_full.yaml"])
def test_stages_and_strategies_exist(repo_root, name):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.merge_from_file(str(repo_root / name))
    assert [stage for stage in cfg.STAGES if stage not in STAGES] == []
    assert cfg.STAGES[-4:] == ("train", "retrain", "fpr", "evaluate")
    assert cfg.MINING.STRATEGIES == ("CrossSlice", "IntraPatient", "CrossDataset")
    assert [strategy for strategy in cfg.MINING.STRATEGIES if strategy not in STRATEGIES] == []
    assert cfg.DATASETS.UNLABELED_SLICES


def test_the_papers_numbers():
    cfg = get_cfg()
    add_lens_config(cfg)
    assert (cfg.MINING.IOU, cfg.MINING.INTRA_PATIENT.DISTANCE) == (0.5, 0.15)
    assert cfg.MINING.CROSS_DATASET.SCORE_THRESH == 0.5
