"""RPN as a proposal generator of LENS."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from detectron2.structures import Boxes

from lens_d2.structures.status import BoxStatus


def build(cfg, name):
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = name
    torch.manual_seed(0)
    return build_proposal_generator(cfg, {"p2": ShapeSpec(channels=16, stride=4)})


def test_rpn_is_detectron2s_with_mulans_numbers(small_cfg):
    rpn = build(small_cfg, "LENSRPN")
    assert isinstance(rpn, RPN) and type(rpn.rpn_head) is StandardRPNHead
    assert rpn.rpn_head.conv.out_channels == 8  # MODEL.RPN.CONV_DIMS
    assert rpn.rpn_head.objectness_logits.out_channels == 5 * 3


def test_rpn_samples_no_anchor_on_an_uncertain_region(small_cfg, make_targets):
    rpn = build(small_cfg, "LENSRPN")
    anchors = Boxes(torch.tensor([[20.0, 16, 44, 40], [50, 10, 70, 30], [52, 12, 58, 18], [2, 2, 12, 12]]))
    gt = make_targets([(20, 16, 44, 40), (50, 10, 70, 30)], [BoxStatus.LESION, BoxStatus.UNCERTAIN])
    (label,), (matched,) = rpn.label_and_sample_anchors([anchors], [gt])
    assert label.tolist() == [1, -1, -1, 0]
    assert matched[0].tolist() == [20, 16, 44, 40]


@pytest.mark.parametrize(("bound", "expected"), [(-1, [1, 1, 0, 0]), (0, [-1, 1, 0, -1]), (3, [1, 1, 0, -1])])
def test_rpn_learns_from_no_anchor_beyond_the_image(small_cfg, make_targets, bound, expected):
    """As Detectron2's (``MODEL.RPN.BOUNDARY_THRESH``)."""
    small_cfg.MODEL.RPN.BOUNDARY_THRESH = bound
    rpn = build(small_cfg, "LENSRPN")
    anchors = [Boxes(torch.tensor([[-2.0, 16, 24, 40], [30, 30, 50, 50], [2, 2, 12, 12], [-4, -4, 8, 8]]))]
    gt = make_targets([(0, 16, 24, 40), (30, 30, 50, 50)], [BoxStatus.LESION] * 2)
    labels, boxes = rpn.label_and_sample_anchors(anchors, [gt])
    theirs, their_boxes = RPN.label_and_sample_anchors(rpn, anchors, [gt])
    assert labels[0].tolist() == theirs[0].tolist() == expected
    assert torch.equal(boxes[0], their_boxes[0])


def test_what_rpn_draws_is_a_function_of_the_sample(small_cfg, make_batch):
    """So that a resumed training draws the anchors that one without a break draws."""
    small_cfg.MODEL.PROPOSAL_GENERATOR.NAME = "LENSRPN"
    small_cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 4
    model, losses = build_model(small_cfg), []
    for before, seed in ((0, 3), (1, 3), (0, 4)):
        batch = [{**sample, "seed": seed + i} for i, sample in enumerate(make_batch("luna"))]
        torch.manual_seed(before)
        losses.append(model(batch)["loss_rpn_cls"].item())
    assert losses[0] == losses[1] != losses[2]
