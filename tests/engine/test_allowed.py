"""Names, numbers and files that config keys cannot have; tests/test_commands.py has more of the names."""

import pytest
from helpers.refusals import expect_refusal

from lens_d2.config import load_config
from lens_d2.engine import allowed
from lens_d2.io.errors import DataError


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DATASETS.LEDGER", "nowhere.parquet"),
        ("MINING.REVIEWED", ("nowhere.csv",)),
        ("MODEL.FPR.WEIGHTS", "nowhere.pth"),
        ("MODEL.LPC.BACKBONE_WEIGHTS", "nowhere.pth"),
        ("HARVEST.WEIGHTS", "nowhere.pth"),
    ],
)
def test_a_file_that_is_not_there_names_its_key(key, value):
    cfg = load_config("phantom/lens_multi.yaml")
    expect_refusal(allowed.check_files, cfg, [key, value], f"{key}: nowhere.*: no such file")


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("MODEL.EMBEDDING.PATCH_SIZE", (3, 0, 48), "3 numbers above 0"),
        ("MODEL.EMBEDDING.LOSS_WEIGHTS", (1.0, 1.0), "4 numbers from 0"),
        ("MODEL.DENSENET.BLOCK_CONFIG", (6, 12), "3 numbers above 0"),
        ("MODEL.DENSENET.GROWTH_RATE", 0, "0; at least 1"),
        ("MODEL.CENTERNET.MIN_RADIUS", -1, "-1; at least 0"),
        ("MODEL.LENS.SIZE_LOSS_WEIGHT", -0.1, "-0.1; a number from 0"),
        ("MODEL.CENTERNET.MIN_OVERLAP", 1.0, "1.0; a number between 0 and 1"),
        ("MODEL.FPR.FOCAL_ALPHA", 1.5, "1.5; a number of at most 1"),
        ("MODEL.AFP.CENTER_RATIO", -0.2, "-0.2; a number from 0 to 1"),
        ("SOLVER.EPOCHS", -1, "-1; at least 0"),
        ("SOLVER.WEIGHT_DECAY", -1.0, "-1.0; a number from 0"),
        ("HARVEST.FINETUNE.BASE_LR", 0.0, "0.0; a number above 0"),
        ("HARVEST.NEGATIVE_IOU", 0.0, "0.0; a number above 0"),
        ("HARVEST.ROUNDS", 0, "0; at least 1"),
        ("MODEL.FPR.BATCH_SIZE_TEST", 0, "0; at least 1"),
        ("MODEL.ROI_HEADS.POSITIVE_FRACTION", 2.0, "2.0; a number from 0 to 1"),
    ],
)
def test_a_number_out_of_range_names_its_key(key, value, fault):
    cfg = load_config("phantom/lens_multi.yaml")
    expect_refusal(allowed.check_numbers, cfg, [key, value], f"{key}: .*{fault}")


@pytest.mark.parametrize(
    "opts",
    [
        ("MINING.CALIBRATION.DATASET", "deeplesion_vn"),
        ("MINING.HARVESTED.STATUSES", ("annotations",)),
        ("HARVEST.VERIFIED", "deeplesion_vn"),
        ("MODEL.EMBEDDING.DATASETS", ("deeplesion_trains",)),
        ("MODEL.DENSENET.NORM", "BNN"),
        ("MODEL.LPC.RESNET_REGION", "pach"),
    ],
)
def test_an_unknown_name_names_its_key_and_near_ones(opts):
    with pytest.raises(DataError, match=f"{opts[0]}: no .*did you mean"):
        allowed.check_names(load_config("phantom/lens_best.yaml", opts))
