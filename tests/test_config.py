"""The five-step configurations name what there is; those of the papers follow them."""

import re
import shlex

import pytest
from detectron2.config import CfgNode, get_cfg
from helpers.advertised import spelled_out

from lens_d2 import add_lens_config
from lens_d2.config import load_config
from lens_d2.engine import STAGES
from lens_d2.engine.allowed import check_names
from lens_d2.engine.checks import check_training
from lens_d2.io.errors import DataError
from lens_d2.mining.lens.strategies import STRATEGIES
from lens_d2.phantom.labels import TERMS


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


@pytest.mark.parametrize("name", ["configs/lens_best.yaml", "configs/phantom/lens_best.yaml"])
def test_self_training_is_calibrated_where_training_sees_marks_alone(repo_root, name):
    cfg = load_config(repo_root / name)
    check_names(cfg)
    check_training(cfg)
    assert cfg.STAGES.index("train") < cfg.STAGES.index("self_training") < cfg.STAGES.index("retrain")
    assert cfg.MINING.CALIBRATION.DATASET.endswith("deeplesion_vm")
    assert cfg.MINING.CALIBRATION.DATASET not in cfg.DATASETS.TRAIN
    assert cfg.MINING.STRATEGIES.index("SelfTraining") < cfg.MINING.STRATEGIES.index("IntraPatient")


def test_the_papers_numbers():
    cfg = get_cfg()
    add_lens_config(cfg)
    assert (cfg.MINING.IOU, cfg.MINING.INTRA_PATIENT.DISTANCE) == (0.5, 0.15)
    assert cfg.MINING.CROSS_DATASET.SCORE_THRESH == 0.5


# What LENS's paper says in numbers, by config and section.
SAID = {
    "base_lens": {
        "IV-A": {"MODEL.DENSENET.GROWTH_RATE": 32, "MODEL.DENSENET.BLOCK_CONFIG": (6, 12, 24)},
        "IV-B": {"MODEL.AFP.CENTER_RATIO": 0.2, "MODEL.AFP.IGNORE_RATIO": 0.5},
        "IV-C": {"MODEL.LENS.SIZE_LOSS_WEIGHT": 0.1, "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 10.0},
        "VI-A": {
            "INPUT.HU_WINDOW": (-1024.0, 3071.0), "INPUT.PIXEL_SPACING": 0.8, "INPUT.SLICE_INTERVAL": 2.0,
            "INPUT.SCALE_RANGE": (0.8, 1.2), "INPUT.SHIFT_RANGE": 8, "INPUT.AUGMENTATIONS": ("Scale", "Shift"),
        },
        "VI-B": {
            "MODEL.DENSENET.WEIGHTS": "imagenet", "SOLVER.OPTIMIZER": "RAdamW", "SOLVER.EPOCHS": 8,
            "SOLVER.BASE_LR": 0.0001, "SOLVER.GAMMA": 0.1, "SOLVER.EPOCH_STEPS": (4, 6),
            "SOLVER.IMS_PER_BATCH": 4, "INPUT.NUM_SLICES": 9, "DATASETS.NEGATIVE_RATIO": 0.5,
            "TEST.LINK_IOU": 0.5,
        },
        "VI-D": {"DATASETS.EPOCH": "lesions"},
    },
    "lens_full": {
        "IV-D": {
            "MODEL.FPR.WIDTH": 64, "MODEL.FPR.KERNEL_DEPTHS": (1, 1, 1, 3), "MODEL.FPR.LOSS": "focal",
            "MODEL.FPR.COMBINE": "mean",
        },
        "VI-B": {
            "MINING.IOU": 0.5, "MINING.INTRA_PATIENT.DISTANCE": 0.15, "MINING.CROSS_DATASET.SCORE_THRESH": 0.5,
            "MODEL.FPR.BACKBONE_WEIGHTS": "imagenet", "MODEL.FPR.SOLVER.OPTIMIZER": "RAdamW",
            "MODEL.FPR.SOLVER.EPOCHS": 6, "MODEL.FPR.SOLVER.BASE_LR": 0.0002, "MODEL.FPR.SOLVER.GAMMA": 0.1,
            "MODEL.FPR.SOLVER.EPOCH_STEPS": (2, 4), "MODEL.FPR.SOLVER.IMS_PER_BATCH": 32, "MODEL.FPR.TP_IOU": 0.5,
            "MODEL.FPR.FP_IOU": 0.3, "MODEL.FPR.FP_PER_TP": 2.0,
        },
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "said_in"), [("base_lens", "base_lens"), ("lens_multi", "base_lens")]
                         + [("lens_full", "base_lens"), ("lens_full", "lens_full")])  # fmt: skip
def test_the_full_size_configs_hold_every_number_of_the_paper(repo_root, name, said_in):
    """In the files themselves, not as defaults that might change."""
    path = str(repo_root / f"configs/{name}.yaml")
    cfg, written = dict(flat(load_config(path))), dict(flat(CfgNode(CfgNode.load_yaml_with_base(path))))
    for section, numbers in SAID[said_in].items():
        for key, value in numbers.items():
            assert cfg[key] == value, f"{section}: {key}"
            assert key in written, f"{section}: {key} is a default"


def test_mulans_numbers(repo_root):
    """Those of its released configuration, and one network for the synthetic cohort with the cohort's labels."""
    cfg = load_config(repo_root / "configs/mulan.yaml")
    rpn, mask, mulan, solver = cfg.MODEL.RPN, cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.MULAN, cfg.SOLVER
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[16, 24, 32, 48, 96]] and rpn.NMS_THRESH == 0.7
    assert (rpn.CONV_DIMS, rpn.BATCH_SIZE_PER_IMAGE, cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE) == ([512], 32, 64)
    assert (mask.POOLER_RESOLUTION, mask.NUM_CONV, mask.CONV_DIM) == (14, 4, 256)
    assert (mulan.NUM_TAGS, mulan.TAG_FC_DIM, cfg.MODEL.ROI_BOX_HEAD.FC_DIM) == (171, 1024, 2048)
    assert (mulan.MASK_LOSS_WEIGHT, mulan.TAG_LOSS_WEIGHT, cfg.MODEL.EMBEDDING.MAX_POSITIVE_WEIGHT) == (1, 1, 300)
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.IMS_PER_BATCH, solver.MOMENTUM) == ("SGD", 0.004, 8, 0.9)
    assert (solver.EPOCHS, solver.EPOCH_STEPS, solver.WEIGHT_DECAY) == (8, (4, 6), 0.0005)
    phantom = load_config(repo_root / "configs/phantom/mulan.yaml")
    assert phantom.MODEL.MULAN.NUM_TAGS == len(TERMS)
    for own in (cfg, phantom):
        assert own.MODEL.MULAN.MASK_ON and own.MODEL.MULAN.TAG_ON and own.MODEL.LENS.EXPERTS == ("deeplesion",)
        check_names(own)
        check_training(own)


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


def test_iterations_among_the_overrides_take_the_place_of_the_files_epochs(repo_root):
    """Else a short try of a config for CT would train for all of its epochs."""
    path = repo_root / "configs/lens_full.yaml"
    assert load_config(path).SOLVER.EPOCHS == 8
    short = load_config(path, ["SOLVER.MAX_ITER", 80]).SOLVER
    assert (short.EPOCHS, short.MAX_ITER, short.STEPS) == (0, 80, (40, 60))
    own = load_config(path, ["SOLVER.MAX_ITER", 80, "SOLVER.STEPS", "(70,)"]).SOLVER
    assert (own.EPOCHS, own.STEPS) == (0, (70,))
    assert load_config(path, ["SOLVER.MAX_ITER", 1]).SOLVER.STEPS == (1,)
    classifier = load_config(path, ["MODEL.FPR.SOLVER.MAX_ITER", 5])
    assert (classifier.MODEL.FPR.SOLVER.EPOCHS, classifier.SOLVER.EPOCHS) == (0, 8)
    with pytest.raises(DataError, match=r"SOLVER.STEPS: the training has 8 epochs \(EPOCHS\): set EPOCH_STEPS"):
        load_config(path, ["SOLVER.STEPS", "(70,)"])


def test_the_later_of_epochs_and_iterations_counts(repo_root):
    """The overrides of a table's command come after those of the table."""
    path = repo_root / "configs/lens_full.yaml"
    epochs = ["SOLVER.EPOCHS", 2, "SOLVER.EPOCH_STEPS", "(1,)"]
    iterations = ["SOLVER.MAX_ITER", 80, "SOLVER.STEPS", "()"]
    tried = load_config(path, [*epochs, *iterations]).SOLVER
    assert (tried.EPOCHS, tried.MAX_ITER, tried.STEPS) == (0, 80, ())
    assert load_config(path, [*iterations, *epochs]).SOLVER.EPOCHS == 2
    scaled = load_config(path, ["SOLVER.MAX_ITER", 80, "SOLVER.EPOCH_STEPS", "(1,)"]).SOLVER
    assert (scaled.EPOCHS, scaled.STEPS) == (0, (10,))
    without = load_config(path, ["SOLVER.EPOCHS", 2, "SOLVER.MAX_ITER", 80]).SOLVER
    assert without.STEPS == ()  # of two epochs; the file's steps come after four and six
    with pytest.raises(DataError, match="SOLVER.EPOCH_STEPS: the training has 80 iterations"):
        load_config(path, [*iterations, "SOLVER.EPOCH_STEPS", "(1,)"])
    with pytest.raises(DataError, match="SOLVER.STEPS: the training has 2 epochs"):
        load_config(path, [*epochs, "SOLVER.STEPS", "(70,)"])
    phantom = repo_root / "configs/phantom/lens_multi.yaml"
    with pytest.raises(DataError, match=r"EPOCH_STEPS: the training has 1000 iterations \(MAX_ITER\): set STEPS"):
        load_config(phantom, ["SOLVER.EPOCH_STEPS", "(1,)"])
