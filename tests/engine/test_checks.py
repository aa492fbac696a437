"""Settings that cannot be trained or evaluated with are refused."""

import pytest
import torch
from helpers.refusals import expect_refusal

from lens_d2.config import load_config
from lens_d2.engine import checks
from lens_d2.io.errors import DataError


def test_a_fault_of_the_training_names_its_key(tmp_path):
    cfg = load_config("phantom/lens_multi.yaml", ["OUTPUT_DIR", str(tmp_path)])
    checks.check_training(cfg, ranks=2)
    for key, value, fault in (
        ("DATASETS.TRAIN", (), "DATASETS.TRAIN: names no dataset"),
        (
            "MODEL.LENS.EXPERTS",
            ("deeplesion", "luna"),
            "DATASETS.TRAIN has phantom_lits_train, of the expert lits",
        ),
        ("DATASETS.SHARES", (("luna_train", 0.5),), "DATASETS.SHARES: no 'luna_train' in DATASETS.TRAIN"),
        ("DATASETS.WEIGHTS", (("phantom_luna_train", 0.0),), "DATASETS.WEIGHTS: 0 for phantom_luna_train"),
        ("SOLVER.REFERENCE_WORLD_SIZE", 5, "SOLVER.REFERENCE_WORLD_SIZE: 5 ranks cannot share a batch"),
        ("SOLVER.PARTS", ("roi_heads.gate",), "MODEL.WEIGHTS: empty, but SOLVER.PARTS"),
        ("MODEL.GATE.FC_DIM", 0, "MODEL.GATE.FC_DIM: 0; at least 1"),
        ("MODEL.EMBEDDING.SOLVER.CHECKPOINT_PERIOD", 0, "MODEL.EMBEDDING.SOLVER.CHECKPOINT_PERIOD: 0; at least 1"),
    ):
        expect_refusal(checks.check_training, cfg, [key, value], fault)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("INPUT.HU_WINDOW", (500.0, -1000.0), "two rising HU are needed"),
        ("INPUT.NUM_SLICES", 8, "8; 3, 9, 15, ... are allowed"),
        ("INPUT.NUM_SLICES", 6, "6; 3, 9, 15, ... are allowed"),
        ("INPUT.PIXEL_SPACING", 0.0, "0.1 to 50 mm are allowed"),
        ("TEST.SCALES", (), "factors of 0.1 to 10 are needed"),
        ("TEST.SCALES", (1.0, -1.0), "factors of 0.1 to 10 are needed"),
        ("INPUT.MAX_SIZE", -1, "-1; at least 32 pixels"),
        ("INPUT.PIXEL_SPACING", 0.01, "0.01; 0.1 to 50 mm"),
        ("TEST.SCALES", (0.001,), "factors of 0.1 to 10"),
        ("MODEL.PIXEL_STD", [0.0], "a number above 0 for each"),
        ("MODEL.PIXEL_STD", [1.0, 1.0], "a number above 0 for each"),
        ("TEST.AUG.ENABLED", True, "it is TEST.SCALES that augments"),
        ("TEST.SLICES_PER_BATCH", 0, "0; at least 1"),
        ("TEST.TRACKER.IOU", 0.0, "0.0; a number above 0"),
        ("TEST.TRACKER.FUSE_IOU", 1.5, "1.5; a number above 0"),
        ("TEST.TRACKER.NOISE", (0.1, 0.1), "3 numbers above 0"),
    ],
)
def test_a_fault_of_the_input_names_its_key(key, value, fault):
    cfg = load_config("phantom/lens_multi.yaml")
    expect_refusal(checks.check_input, cfg, [key, value], f"{key}: .*{fault}")


def test_an_evaluation_needs_weights_or_a_checkpoint(tmp_path):
    cfg = load_config("phantom/lens_multi.yaml", ["OUTPUT_DIR", str(tmp_path), "MODEL.WEIGHTS", ""])
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    checks.check_evaluation(cfg, resume=True)
    with pytest.raises(DataError, match="MODEL.WEIGHTS: empty"):
        checks.check_evaluation(cfg)
    cfg.DATASETS.TEST = ()
    with pytest.raises(DataError, match="DATASETS.TEST: names no dataset"):
        checks.check_evaluation(cfg, resume=True)


TEACHER = ("MODEL.TEACHER.ENABLED", True)


@pytest.mark.parametrize(
    ("key", "opts", "fault"),
    [
        ("MODEL.LENS.LABELED_SHARE", ("MODEL.LENS.LABELED_SHARE", 0.0), "0.0; a number above 0"),
        ("MODEL.LENS.LABELED_SHARE", ("MODEL.LENS.LABELED_SHARE", 30.0), "30.0; a number from 0 to 1"),
        ("MODEL.TEACHER.DECAY", ("MODEL.TEACHER.DECAY", 1.1), "1.1; a number from 0 to 1"),
        ("MODEL.TEACHER.UNCERTAIN_SCORE", ("MODEL.TEACHER.LESION_SCORE", 0.4), "0.5, above MODEL.TEACHER.LESION"),
        ("MODEL.TEACHER.START_ITER", ("MODEL.TEACHER.START_ITER", -1), "-1; at least 0"),
        ("MODEL.TEACHER.VISITS", ("MODEL.TEACHER.VISITS", 0), "0; at least 1"),
        ("MODEL.TEACHER.ENABLED", (*TEACHER, "MODEL.LENS.EXPERTS", ()), "it needs LENS or CECN"),
        (
            "MODEL.LENS.PARTIALLY_LABELED",
            (*TEACHER, "MODEL.LENS.PARTIALLY_LABELED", ("luna",)),
            "labels: deeplesion",
        ),
        (
            "MODEL.LENS.PARTIALLY_LABELED",
            ("MODEL.AFP.MISSING_LABELS", "HIGH_SCORES", "DATASETS.TRAIN", ("phantom_luna_train",)),
            "labels: none, all datasets are fully",
        ),
    ],
)
def test_a_fault_of_the_treatment_of_missing_labels_names_its_key(key, opts, fault):
    cfg = load_config("phantom/lens_multi.yaml", TEACHER)
    expect_refusal(checks.check_training, cfg, list(opts), f"{key}: .*{fault}")


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        ("phantom/cecn.yaml", "MODEL.ROI_HEADS.MISSING_LABELS", "OBHS"),
        ("phantom/cecn.yaml", "MODEL.ROI_HEADS.NUM_CLASSES", 2),
        ("phantom/cecn.yaml", "MODEL.AFP.MISSING_LABELS", "HIGH_SCORES"),
        ("phantom/cecn.yaml", "MODEL.LENS.LABELED_SHARE", 0.3),
        ("phantom/faster_rcnn.yaml", "MODEL.AFP.MISSING_LABELS", "HIGH_SCORES"),
    ],
)
def test_treatments_without_an_effect_are_refused(config, key, value):
    cfg = load_config(config)
    expect_refusal(checks.check_training, cfg, [key, value], f"{key}: .*the detector lacks")


def test_several_scales_need_nms():
    cfg = load_config("cecn.yaml")
    opts = ["TEST.SCALES", (1.0, 1.25)]
    expect_refusal(checks.check_input, cfg, opts, "NMS_THRESH_TEST: 1.0, no NMS")


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("MINING.SELF_TRAINING.PRECISION", 90, "90.0; a number from 0 to 1"),
        ("MINING.CALIBRATION.LEAST_PRECISION", -0.1, "-0.1; a number from 0 to 1"),
        ("MINING.CALIBRATION.SIZES", (24.0, 16.0), r".24.0, 16.0.; rising mm are needed"),
        ("MINING.CALIBRATION.SIZES", (), "; rising mm are needed"),
        ("MINING.ROUNDS", 0, "0; at least 1"),
        ("MINING.IOU", 5.0, "5.0; a number from 0 to 1"),
        ("MINING.INTRA_PATIENT.DISTANCE", -1.0, "-1.0; a number from 0"),
        ("HARVEST.PRECISION", 95.0, "95.0; a number from 0 to 1"),
        ("HARVEST.NEGATIVES_PER_VOLUME", -1, "-1; at least 0"),
        ("MODEL.FPR.WIDTH", 0, "0; at least 1"),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", -1.0, "-1.0; a number from 0 to 1"),
        ("MINING.EXPERT_AGREEMENT.EXPERTS", 0, "0; at least 1"),
        ("MINING.CALIBRATION.DATASET", "phantom_deeplesion_train", "which DATASETS.TRAIN names"),
        ("MODEL.WEIGHTS", "", "empty, and the stage mine needs it"),
        ("MINING.STRATEGIES", (), "empty, and the stage mine needs it"),
    ],
)
def test_a_fault_of_mining_names_its_key(key, value, fault):
    cfg = load_config("phantom/lens_best.yaml", ["STAGES", ("mine", "retrain"), "MODEL.WEIGHTS", "detector.pth"])
    expect_refusal(checks.check_training, cfg, [key, float(value) if value == 90 else value], f"{key}: .*{fault}")


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("SOLVER.MAX_ITER", 0, "0, and EPOCHS is 0, too"),
        ("SOLVER.STEPS", (3, 2), r"\(3, 2\); rising numbers above 0"),
        ("MODEL.EMBEDDING.SOLVER.EPOCH_STEPS", (0, 2), "rising numbers above 0"),
        ("SOLVER.BASE_LR", -0.1, "-0.1; a number above 0"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.0, "0.0; a number above 0"),
        ("DATALOADER.NUM_WORKERS", -1, "-1; at least 0"),
        ("INPUT.SCALE_RANGE", (1.2, 0.8), "two rising factors"),
        ("INPUT.CROP.SIZE", (0, 96), "two numbers above 0"),
        ("MODEL.AFP.PRE_NMS_TOPK_TRAIN", -1, "-1; at least 1"),
        ("MODEL.EMBEDDING.BATCH_SIZE_TEST", -1, "-1; at least 1"),
    ],
)
def test_a_number_that_cannot_be_meant_names_its_key(key, value, fault):
    cfg = load_config("phantom/lens_multi.yaml")
    expect_refusal(checks.check_training, cfg, [key, value], f"{key}: .*{fault}")


@pytest.mark.parametrize("expert", ["", "kits.2023", "kits/2023", "keys"])
def test_an_expert_s_name_is_a_word(expert):
    cfg = load_config("phantom/lens_multi.yaml", ["MODEL.LENS.EXPERTS", ("lits", expert)])
    with pytest.raises(DataError, match="MODEL.LENS.EXPERTS: .*letters, digits, _ and -"):
        checks.check_input(cfg)


@pytest.mark.parametrize("experts", [("lits", "lits"), ("fused", "lits")])
def test_names_of_experts_are_unique(experts):
    cfg = load_config("phantom/lens_multi.yaml", ["MODEL.LENS.EXPERTS", experts])
    with pytest.raises(DataError, match="MODEL.LENS.EXPERTS: .*; name each expert once, and none 'fused'"):
        checks.check_input(cfg)


@pytest.mark.parametrize(
    ("key", "opts", "fault"),
    [
        ("STAGES", ("STAGES", ("evaluate", "train")), "train cannot stand after evaluate"),
        ("STAGES", ("STAGES", ("train", "harvest")), "harvest cannot stand after train"),
        ("MINING.STRATEGIES", ("MINING.STRATEGIES", ()), "empty, and the stage self_training needs it"),
        (
            "MINING.STRATEGIES",
            ("STAGES", ("train", "retrain"), "MINING.STRATEGIES", ()),
            "empty, and the stage retrain needs what they find",
        ),
        ("DATASETS.TEST", ("DATASETS.TEST", ()), "empty, and the stage evaluate needs it"),
        (
            "DATASETS.TRAIN",
            ("STAGES", ("train", "fpr"), "DATASETS.TRAIN", ("phantom_luna_train",)),
            "no dataset is partially labelled",
        ),
    ],
)
def test_stages_that_could_not_run_are_refused(key, opts, fault):
    cfg = load_config("phantom/lens_best.yaml")
    expect_refusal(checks.check_training, cfg, list(opts), f"{key}: .*{fault}")


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("embedding", "MODEL.EMBEDDING.PATCH_SIZE", (3, 4, 4)),
        ("fpr", "MODEL.FPR.KERNEL_DEPTHS", (1, 1)),
        ("fpr", "MODEL.FPR.Z_STRIDES", (1,)),
    ],
)
def test_networks_of_later_stages_are_built_before_training(stage, key, value):
    cfg, state = load_config("phantom/lens_full.yaml"), torch.get_rng_state()
    expect_refusal(checks.check_training, cfg, [key, value], f"{key.rpartition('.')[0]}: cannot build a network")
    assert torch.equal(torch.get_rng_state(), state)
    cfg.merge_from_list([key, value, "STAGES", [name for name in cfg.STAGES if name != stage]])
    checks.check_networks(cfg)


def test_stages_of_all_configs_can_run(repo_root):
    folder = repo_root / "configs"
    paths = [path for path in folder.rglob("*.yaml") if "STAGES" in path.read_text()]
    assert len(paths) > 6
    for path in paths:
        checks.check_stages(load_config(str(path)))
