"""The five-step configurations name what there is; those of the papers follow them."""

import re
import shlex

import pytest
from detectron2.config import CfgNode, get_cfg
from helpers.advertised import spelled_out

from lens_d2 import add_lens_config
from lens_d2.config import load_config
from lens_d2.engine import STAGES
from lens_d2.engine.checks import check_names, check_training
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


def flat(node, prefix=""):
    """{"KEY.KEY": value} of a config."""
    for key, value in node.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else [(f"{prefix}{key}", value)]


@pytest.mark.parametrize("name", ["cecn", "centernet", "faster_rcnn"])
def test_rows_of_table_4_differ_by_what_was_harvested_alone(repo_root, name):
    """Those of the marks, of the harvested lesions, and of both kinds, as docs/detectors.md has them."""
    rows = [shlex.split(spelled_out(f"TRAINED_ON_{what}")) for what in ("MARKS", "LESIONS", "BOTH")]
    alone, lesions, both = (dict(flat(load_config(repo_root / f"configs/{name}.yaml", row))) for row in rows)
    assert alone["DATASETS.TRAIN"] == ("deeplesion_vm", "deeplesion_vh")
    assert {key for key in both if both[key] != alone[key]} == {"DATASETS.LEDGER"}
    assert {key for key in both if both[key] != lesions[key]} == {
        "DATASETS.HARD_NEGATIVE_RATIO",
        "MODEL.CENTERNET.SUPPRESS_HARD_NEGATIVES",
    }


def test_centernets_own_settings(repo_root):
    """The overrides of docs/detectors.md: optimizer, batch, epochs and augmentation of its published training."""
    document = re.sub(r"\\\n", " ", (repo_root / "docs/detectors.md").read_text())
    command = shlex.split(next(line for line in document.splitlines() if "SOLVER.OPTIMIZER Adam" in line))
    cfg = load_config(repo_root / "configs/cecn.yaml", command[command.index("SOLVER.OPTIMIZER") :])
    solver = cfg.SOLVER
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.WEIGHT_DECAY) == ("Adam", 1.25e-4, 0.0)
    assert (solver.IMS_PER_BATCH, solver.EPOCHS, solver.EPOCH_STEPS) == (32, 140, (90, 120))
    assert not solver.CLIP_GRADIENTS.ENABLED and cfg.INPUT.SCALE_RANGE == (0.6, 1.4)
    assert cfg.INPUT.AUGMENTATIONS == ("Scale", "Shift", ("RandomFlip", {"prob": 0.5}))
    check_names(cfg)
    check_training(cfg)


def test_the_harvesters_config_follows_the_paper_and_the_phantoms_says_where_it_does_not(repo_root):
    paper, phantom = (load_config(repo_root / f"configs/{name}harvester.yaml") for name in ("", "phantom/"))
    assert paper.HARVEST.NEGATIVE_IOU > 1 and phantom.HARVEST.NEGATIVE_IOU == 0.1
    assert not paper.DATASETS.HARD_NEGATIVES_BY_RECORD and phantom.DATASETS.HARD_NEGATIVES_BY_RECORD
    assert (paper.DATASETS.EPOCH, phantom.DATASETS.EPOCH) == ("slices", "lesions")
    assert paper.HARVEST.FINETUNE_CLASSIFIER and not phantom.HARVEST.FINETUNE_CLASSIFIER
    assert paper.HARVEST.FINETUNE_LPC.BASE_LR < paper.MODEL.LPC.SOLVER.BASE_LR
    assert paper.MODEL.CENTERNET.MIN_OVERLAP == 0.7 and paper.MODEL.CENTERNET.MIN_RADIUS == 0
    assert load_config(repo_root / "configs/lens_full.yaml").DATASETS.EPOCH == "lesions"  # LENS's own rule
