"""The five-step configurations name what there is, and mining's benchmark mines."""

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


def test_the_benchmark_mines_what_it_has_made(tool):
    """A patient of four studies, each with three marks: the others' are found again, each on ten slices."""
    result = tool("benchmark_mining").run(8000)
    assert (result["proposals"], result["volumes"], result["given"]) == (8000, 8, 24)
    # In each of 8 sub-volumes: 3 marked lesions on 9 more slices, and the 9 of the other studies on 10.
    assert result["mined"] == pytest.approx(8 * (3 * 9 + 9 * 10), rel=0.05)
    assert result["uncertain"] > 0
    assert result["seconds"] > 0 and result["peak_mb"] > 0
