"""A gate beside the experts, and one for a finished detector: the other weights are as without it."""

import pytest
import torch
from detectron2.utils.env import seed_all_rng
from helpers.blocks import blocks_cfg, register_blocks

from lens_d2.engine import LENSTrainer
from lens_d2.io.errors import DataError

pytestmark = pytest.mark.usefixtures("one_thread")

GATED = ("MODEL.ROI_HEADS.NAME", "GatedROIHeads")


def train(folder, *opts):
    """A trainer after the whole of a short training, from MODEL.WEIGHTS if there are any."""
    register_blocks(folder.parent / "data")
    cfg = blocks_cfg(folder, "DATASETS.TEST", (), "TEST.OVERLAYS", 0, *opts)
    seed_all_rng(cfg.SEED)
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load(False)
    trainer.train()
    return trainer


def weights(trainer):
    """Weights and buffers, those of the gate apart."""
    state = trainer.model.state_dict()
    return (
        {name: value for name, value in state.items() if not name.startswith("roi_heads.gate.")},
        {name: value for name, value in state.items() if name.startswith("roi_heads.gate.")},
    )


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_other_weights_do_not_feel_a_gate(tmp_path):
    plain, _ = weights(train(tmp_path / "plain"))
    beside, gate = weights(train(tmp_path / "beside", *GATED))
    assert_equal(plain, beside)
    assert gate["roi_heads.gate.offset.weight"].any()

    start = ("MODEL.WEIGHTS", str(tmp_path / "plain/output/model_final.pth"))
    trainer = train(tmp_path / "alone", *GATED, *start, "SOLVER.PARTS", ("roi_heads.gate",))
    rest, gate = weights(trainer)
    assert_equal(plain, rest)
    assert gate["roi_heads.gate.offset.weight"].any()
    assert len(trainer.optimizer.param_groups[0]["params"]) == len(gate)

    cfg = blocks_cfg(tmp_path / "test", *GATED)
    metrics = LENSTrainer.test(cfg, trainer.model.eval())
    assert {"average_sensitivity", "luna/average_sensitivity"} <= set(metrics["lens3d"])


def test_a_dataset_of_which_nothing_learns_is_refused(tmp_path):
    parts = ("proposal_generators.luna", "roi_heads.box_predictors.luna")
    with pytest.raises(DataError, match="SOLVER.PARTS: trains nothing of deeplesion"):
        train(tmp_path / "none", "SOLVER.PARTS", parts)


def test_parts_that_learn_have_to_exist(tmp_path):
    with pytest.raises(DataError, match="^SOLVER.PARTS: no parameter begins with 'roi_heads.gate'; did you mean"):
        train(tmp_path / "none", "SOLVER.PARTS", ("roi_heads.gate",))
