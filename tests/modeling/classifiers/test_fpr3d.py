"""The network of false-positive reduction."""

import pytest
import torch
from helpers.classifiers import fpr_cfg

from lens_d2.data.patches import PatchGrid
from lens_d2.modeling import build_classifier


@pytest.fixture
def cfg(tmp_path):
    return fpr_cfg(tmp_path)


def test_the_interface_of_classifiers(cfg):
    classifier = build_classifier(cfg)
    assert classifier.grid == PatchGrid((4, 24, 24), (3.0, 2.0, 2.0))
    boxes = torch.tensor([[2.0, 2, 0, 20, 20, 3]]).expand(3, -1)
    logits = classifier(torch.randn(3, 1, 4, 24, 24) * 300, boxes)
    assert logits.shape == (3,)
    logits.sum().backward()
    assert all(p.grad is not None for p in classifier.parameters())
    with pytest.raises(KeyError):
        build_classifier(cfg, "Oracle")
