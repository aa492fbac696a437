"""MLC3D: three networks, three scales."""

import pytest
import torch
from helpers.classifiers import lpc_cfg

from lens_d2.modeling.classifiers import build_classifier


@pytest.fixture
def cfg(tmp_path):
    return lpc_cfg(tmp_path)


def test_mlc3d_fuses_the_probabilities_of_three_networks(cfg):
    cfg.MODEL.LPC.NAME = "MLC3D"
    classifier = build_classifier(cfg, "LPC")
    patches, boxes = torch.randn(2, 1, 8, 32, 32) * 300, torch.zeros(2, 6)
    with torch.no_grad():
        each = classifier.train()(patches, boxes)
        assert each.shape == (2, 3)
        fused = classifier.eval()(patches, boxes).sigmoid()
        torch.testing.assert_close(fused, each.sigmoid() @ torch.tensor([0.3, 0.4, 0.3]))
        # What lies outside a network's scale does not reach it.
        other = patches.clone()
        other[..., :8] = other[..., 24:] = 500
        changed = (classifier.train()(other, boxes) != each).any(dim=0)
    assert changed.tolist() == [False, False, True]


def test_mlc3d_takes_the_papers_scales(cfg):
    cfg.MODEL.LPC.NAME, cfg.MODEL.LPC.SCALES = "MLC3D", ((4, 24, 24), (8, 48, 48), (16, 64, 64))
    classifier = build_classifier(cfg, "LPC").eval()
    assert classifier.grid.shape == (16, 64, 64)
    with torch.no_grad():
        assert classifier(torch.zeros(1, 1, 16, 64, 64), torch.zeros(1, 6)).shape == (1,)
