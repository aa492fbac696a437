"""Classifiers and their losses by name, all with one interface."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from helpers.classifiers import lpc_cfg

from lens_d2 import add_lens_config
from lens_d2.data.patches import PatchGrid
from lens_d2.engine.classifier import ClassifierObjective
from lens_d2.modeling.classifiers import build_classifier, build_loss

NAMES = ("GLC_MV", "GLC", "GLC_3D", "ResNet_MV", "ResNet_3D", "MLC3D", "FPR3D")


@pytest.fixture
def cfg(tmp_path):
    return lpc_cfg(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_interface_of_classifiers(cfg, name):
    cfg.MODEL.LPC.NAME = name
    classifier = build_classifier(cfg, "LPC")
    assert classifier.grid == PatchGrid((8, 32, 32), (3.0, 2.0, 2.0))
    boxes = torch.tensor([[10.0, 8, 2, 20, 22, 5]]).expand(3, -1)
    patches = torch.randn(3, 1, 8, 32, 32) * 300
    losses = ClassifierObjective(classifier, build_loss(cfg.MODEL.LPC), "loss_lpc")(
        {"patch": patches, "box": boxes, "is_lesion": torch.tensor([1.0, 0.0, 1.0])}
    )
    assert list(losses) == ["loss_lpc"] and 0.1 < losses["loss_lpc"] < 10
    losses["loss_lpc"].backward()
    assert all(p.grad is not None for p in classifier.parameters())
    with torch.no_grad():
        logits = classifier.eval()(patches, boxes)
        alone = classifier(patches[1:2], boxes[1:2])
    assert logits.shape == (3,)
    torch.testing.assert_close(alone, logits[1:2])


@pytest.mark.parametrize("name, value", [("cross_entropy", np.log(2)), ("focal", np.log(2) / 4)])
def test_the_loss_is_the_one_that_the_config_names(cfg, name, value):
    """At a probability of 1/2; the focal loss weighs it with (1/2)^2 there."""
    cfg.MODEL.LPC.LOSS = name
    loss = build_loss(cfg.MODEL.LPC)(torch.zeros(4), torch.tensor([0.0, 1, 1, 1]))
    assert loss.item() == pytest.approx(value)
    cfg.MODEL.LPC.LOSS = "hinge"
    with pytest.raises(KeyError):
        build_loss(cfg.MODEL.LPC)


def test_roles_keep_to_their_papers(cfg):
    cfg = get_cfg()
    add_lens_config(cfg)
    fpr, lpc = cfg.MODEL.FPR, cfg.MODEL.LPC
    assert (fpr.NAME, fpr.LOSS, fpr.FP_PER_TP, fpr.KERNEL_DEPTHS) == ("FPR3D", "focal", 2.0, (1, 1, 1, 3))
    solver = fpr.SOLVER
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.IMS_PER_BATCH) == ("RAdamW", 2e-4, 32)
    assert (solver.EPOCHS, solver.EPOCH_STEPS) == (6, (2, 4))
    assert (lpc.NAME, lpc.LOSS, lpc.WIDTH, lpc.PATCH_SIZE) == ("GLC_MV", "cross_entropy", 64, (32, 128, 128))
    assert set(fpr) - set(lpc) == {"TP_IOU", "FP_IOU", "FP_SCORE_THRESH", "FP_SCORE_POWER", "COMBINE"}
