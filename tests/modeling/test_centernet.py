"""CenterNet's head: heatmaps, the losses of Eqs. 6 and 8, boxes from peaks."""

import pytest
import torch
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, pairwise_iou
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.config import load_config
from lens_d2.modeling.centernet import CenterNet
from lens_d2.modeling.heatmaps import (
    HeatmapLabeler,
    OutputBranch,
    center_cells,
    gaussian_heatmap,
    gaussian_radius,
    penalty_reduced_focal_loss,
    prior_bias,
    with_hard_negatives,
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


@settings(max_examples=50, deadline=None)
@given(w=st.floats(2, 60), h=st.floats(2, 60), overlap=st.floats(0.3, 0.9))
def test_corners_off_by_the_radius_keep_the_overlap(w, h, overlap):
    r = gaussian_radius(torch.tensor([[w, h]]), overlap).item()
    true = Boxes(torch.tensor([[0.0, 0, w, h]]))
    off = Boxes(torch.tensor([[a, a, w + b, h + b] for a, b in ((r, r), (r, -r), (-r, r))]))
    assert pairwise_iou(true, off).min() == pytest.approx(overlap, abs=1e-4)


def test_heatmap_is_a_gaussian_around_the_cell_of_the_centre():
    boxes = torch.tensor([[7.0, 1, 37, 31]])  # its centre is in column 22, row 16
    heat = gaussian_heatmap(boxes, (40, 50), min_overlap=0.7)
    radius = int(gaussian_radius(torch.tensor([[30.0, 30]]), 0.7))
    sigma = (2 * radius + 1) / 6
    assert radius == 2 and (heat == 1).sum() == 1 and heat[16, 22] == 1
    assert heat[16, 24] == pytest.approx(torch.exp(torch.tensor(-(2**2) / (2 * sigma**2))).item())
    assert heat[15, 24] == pytest.approx((heat[16, 24] * heat[15, 22]).item())
    assert (heat > 0).sum() == (2 * radius + 1) ** 2
    assert gaussian_heatmap(boxes[:0], (40, 50), 0.7).sum() == 0


def test_overlapping_gaussians_keep_the_larger_value():
    boxes = torch.tensor([[10.0, 4, 34, 28], [13.0, 4, 37, 28]])
    together = gaussian_heatmap(boxes, (40, 50), 0.7)
    apart = [gaussian_heatmap(box[None], (40, 50), 0.7) for box in boxes]
    assert torch.equal(together, torch.maximum(*apart)) and (together == 1).sum() == 2


def test_equation_6_by_hand():
    logits = torch.tensor([0.3, -0.7, 1.1])
    target = torch.tensor([1.0, 0.0, 0.6])
    p = logits.sigmoid()
    expected = -(
        (1 - p[0]) ** 2 * p[0].log() + p[1] ** 2 * (1 - p[1]).log() + 0.4**4 * p[2] ** 2 * (1 - p[2]).log()
    )
    assert penalty_reduced_focal_loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-5)
    extreme = penalty_reduced_focal_loss(torch.tensor([90.0, -90.0]), torch.tensor([0.0, 1.0]))
    assert extreme.item() == pytest.approx(180, rel=1e-3)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 2.0])
def test_a_hard_negative_weighs_16_times_a_background_pixel(logit):
    losses, gradients = [], []
    for target in (-1.0, 0.0):
        x = torch.tensor([logit], requires_grad=True)
        loss = penalty_reduced_focal_loss(x, torch.tensor([target]), beta=4.0)
        loss.backward()
        losses.append(loss.item())
        gradients.append(x.grad.item())
    assert losses[0] == 16 * losses[1] and gradients[0] == pytest.approx(16 * gradients[1], rel=1e-6)


def test_hard_negatives_overwrite_lesions():
    positive, negative = torch.tensor([0.0, 1.0, 0.5, 0.2]), torch.tensor([0.0, 0.3, 0.0, 1.0])
    assert with_hard_negatives(positive, negative).tolist() == pytest.approx([0.0, -0.3, 0.5, -1.0])


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


def test_lesions_have_a_gaussian_at_the_papers_size(repo_root):
    """20 mm, at the pixels and the stride of the config."""
    cfg = load_config(repo_root / "configs/cecn.yaml")
    side = 20 / cfg.INPUT.PIXEL_SPACING / 4
    assert gaussian_radius(torch.tensor([[side, side]]), cfg.MODEL.CENTERNET.MIN_OVERLAP) >= 1
