"""All experts' proposals together are those of one after another."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.structures import ImageList
from torch import nn

from lens_d2.config import load_config
from lens_d2.inference.joint_afp import JointAFP, joint_proposals

IMAGES = ImageList(torch.zeros(2, 9, 64, 80), [(64, 80), (60, 72)])


@pytest.fixture
def generators():
    torch.manual_seed(0)
    cfg = load_config(opts=["MODEL.PROPOSAL_GENERATOR.NAME", "AFP", "MODEL.AFP.CONV_DIM", 8])
    return [build_proposal_generator(cfg, {"p2": ShapeSpec(channels=16, stride=4)}).eval() for _ in range(3)]


@torch.no_grad()
def test_joint_proposals_are_each_generators_own(generators):
    """In double precision, as round-off decides which of two pixels with nearly the same score comes first."""
    generators = [generator.double() for generator in generators]
    features = {"p2": torch.randn(2, 16, 16, 20, dtype=torch.float64)}
    propose = joint_proposals(generators)
    assert isinstance(propose, JointAFP)
    for joint, generator in zip(propose(IMAGES, features), generators, strict=True):
        for ours, own in zip(joint, generator(IMAGES, features)[0], strict=True):
            logits, boxes = own.objectness_logits.float(), own.proposal_boxes.tensor.float()
            torch.testing.assert_close(ours.objectness_logits.float(), logits, atol=1e-5, rtol=0)
            torch.testing.assert_close(ours.proposal_boxes.tensor.float(), boxes, atol=1e-4, rtol=0)


@torch.no_grad()
def test_branches_of_another_form_run_one_after_another(generators):
    generators[1].centerness = nn.Conv2d(16, 1, kernel_size=1)
    features = {"p2": torch.randn(2, 16, 16, 20)}
    found = joint_proposals(generators)(IMAGES, features)
    own, _ = generators[1](IMAGES, features)
    assert len(found) == 3 and torch.equal(found[1][0].objectness_logits, own[0].objectness_logits)
