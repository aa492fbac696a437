"""CenterNet's head: what counts in its losses, boxes from peaks."""

import pytest
import torch
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.modeling.centernet import CenterNet
from lens_d2.modeling.heatmaps import (
    HeatmapLabeler,
    OutputBranch,
    center_cells,
    penalty_reduced_focal_loss,
    prior_bias,
)
from lens_d2.structures.status import BoxStatus


def centernet(suppress_hard_negatives=True, **kwargs):
    torch.manual_seed(0)
    return CenterNet(
        in_feature="p2",
        stride=4,
        heatmap=OutputBranch(6, 5, 1, kernel_size=1, start=prior_bias(0.1)),
        sizes=OutputBranch(6, 5, 2, kernel_size=1, start=2.0),
        offsets=OutputBranch(6, 5, 2, kernel_size=1, start=0.5),
        label_assigner=HeatmapLabeler(suppress_hard_negatives=suppress_hard_negatives),
        center_loss=penalty_reduced_focal_loss,
        **kwargs,
    )


def test_registered_under_its_name():
    assert PROPOSAL_GENERATOR_REGISTRY.get("CenterNet") is CenterNet


LESION, NEGATIVE, UNCERTAIN = (20, 12, 60, 44), (60, 40, 76, 60), (0, 0, 28, 40)


def test_the_head_weighs_a_hard_negatives_centre_16_times(make_targets):
    logits = torch.full((1, 16, 20), 0.4, requires_grad=True)
    gt = make_targets([LESION, NEGATIVE], [BoxStatus.LESION, BoxStatus.HARD_NEGATIVE])
    gradients = []
    for on in (True, False):
        losses = centernet(suppress_hard_negatives=on).losses(
            logits, torch.zeros(1, 16, 20, 2), torch.zeros(1, 16, 20, 2), [gt]
        )
        gradients.append(torch.autograd.grad(losses["loss_centernet_center"], logits)[0][0])
    centre = center_cells(torch.tensor([NEGATIVE]) / 4, (16, 20))[0]
    x, y = centre.tolist()
    assert gradients[0][y, x] == pytest.approx(16 * gradients[0][0, 0].item(), rel=1e-5)
    assert gradients[1][y, x] == pytest.approx(gradients[1][0, 0].item(), rel=1e-5)


def test_uncertain_regions_have_no_gradient_but_lesions_in_them_do(make_targets):
    logits = torch.zeros(1, 16, 20, requires_grad=True)
    gt = make_targets([UNCERTAIN, (4, 4, 16, 16)], [BoxStatus.UNCERTAIN, BoxStatus.LESION])
    losses = centernet().losses(logits, torch.zeros(1, 16, 20, 2), torch.zeros(1, 16, 20, 2), [gt])
    losses["loss_centernet_center"].backward()
    inside = torch.zeros(16, 20, dtype=torch.bool)
    inside[:10, :7] = True  # cells whose centres lie in the box
    inside[2, 2] = False  # the lesion's centre
    gradient = logits.grad[0]
    assert (gradient[inside] == 0).all() and (gradient[~inside] != 0).all() and gradient[2, 2] < 0


@settings(max_examples=30, deadline=None)
@given(x=st.floats(0, 50), y=st.floats(0, 40), w=st.floats(8, 28), h=st.floats(8, 22))
def test_perfect_outputs_give_no_size_loss_and_the_box_back(x, y, w, h):
    from detectron2.structures import Instances

    box = torch.tensor([[x, y, x + w, y + h]])
    gt = Instances((64, 80), gt_boxes=Boxes(box), gt_status=torch.tensor([0]))
    network = centernet().eval()
    cell = center_cells(box / 4, (16, 20))[0]
    logits = torch.full((1, 16, 20), -20.0)
    logits[0, cell[1], cell[0]] = 20.0
    sizes, offsets = torch.full((1, 16, 20, 2), 99.0), torch.full((1, 16, 20, 2), 99.0)
    sizes[0, cell[1], cell[0]] = torch.tensor([w, h]) / 4
    offsets[0, cell[1], cell[0]] = (box[0, :2] + box[0, 2:]) / 8 - cell
    losses = network.losses(logits, sizes, offsets, [gt])
    assert all(value < 1e-4 for value in losses.values())
    (proposal,) = network.predict_proposals(logits, sizes, offsets, [(64, 80)])
    torch.testing.assert_close(proposal.proposal_boxes.tensor[:1], box, atol=1e-3, rtol=0)


def test_boxes_are_as_exact_in_bfloat16():
    """Positions of cells have more digits than bfloat16."""
    network = centernet(topk=(7, 50)).eval()
    images = ImageList(torch.zeros(1, 9, 64, 512), [(64, 512)])
    with torch.autocast("cpu", torch.bfloat16):
        (proposal,), _ = network(images, {"p2": torch.randn(1, 6, 16, 128)})
    centers = proposal.proposal_boxes.get_centers()
    assert centers.dtype == proposal.objectness_logits.dtype == torch.float32
    assert (centers.max(dim=0).values - centers.max(dim=0).values.bfloat16().float()).abs().max() > 0


def test_proposals_are_peaks_sorted_and_limited():
    network = centernet(topk=(7, 3)).eval()
    images = ImageList(torch.zeros(1, 9, 64, 80), [(64, 80)])
    (proposal,), losses = network(images, {"p2": torch.randn(1, 6, 16, 20)})
    assert losses == {} and 0 < len(proposal) <= 3
    assert (proposal.objectness_logits.diff() <= 0).all()
    logits = torch.zeros(1, 16, 20)
    logits[0, 5, 5], logits[0, 5, 6], logits[0, 9, 9] = 3.0, 2.0, 1.0
    sizes, offsets = torch.full((1, 16, 20, 2), 2.0), torch.full((1, 16, 20, 2), 0.5)
    (proposal,) = network.predict_proposals(logits, sizes, offsets, [(64, 80)])
    assert proposal.objectness_logits[:2].tolist() == [3.0, 1.0]  # 2.0 is no peak


def test_a_slice_without_lesions_gives_finite_losses(make_targets):
    images = ImageList(torch.zeros(1, 9, 64, 80), [(64, 80)])
    _, losses = centernet()(images, {"p2": torch.randn(1, 6, 16, 20)}, [make_targets([])])
    assert (
        losses["loss_centernet_size"] == losses["loss_centernet_offset"] == 0
        and 0 < losses["loss_centernet_center"] < 1e4
    )
