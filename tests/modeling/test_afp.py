"""AFP's targets, losses and boxes (Section IV-B)."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from fvcore.nn import sigmoid_focal_loss
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.modeling.afp import AFP, CenterRegionLabeler, distances_to_boxes, pixel_centers, pixels_in_region
from lens_d2.modeling.heatmaps import OutputBranch, prior_bias
from lens_d2.modeling.selection import NOT_A_BOX
from lens_d2.structures.status import BoxStatus


def afp(hard_negative_weight=1.0, **kwargs):
    torch.manual_seed(0)
    return AFP(
        in_feature="p2",
        stride=4,
        centerness=OutputBranch(6, 5, 1, kernel_size=3, start=prior_bias(0.01)),
        distances=OutputBranch(6, 5, 4, kernel_size=3, start=1.0),
        label_assigner=CenterRegionLabeler(hard_negative_weight=hard_negative_weight),
        center_loss=partial(sigmoid_focal_loss, alpha=0.25, gamma=2.0),
        size_loss=partial(F.l1_loss, reduction="sum"),
        **kwargs,
    )


def label_pixels(points, gt):
    labels, weights, distances = CenterRegionLabeler()(points, 4, gt)
    assert (weights == 1).all()
    return labels, distances


def test_a_lesions_weight_is_that_of_its_positive_pixels(make_targets):
    gt = make_targets([(8, 8, 32, 32), (48, 8, 72, 32), (8, 48, 32, 72)], size=(96, 96))
    gt.gt_status[2] = int(BoxStatus.UNCERTAIN)
    gt.gt_weight = torch.tensor([0.75, 1.0, 0.25])
    labels, weights, _ = CenterRegionLabeler()(pixel_centers(24, 24, 4, torch.device("cpu")), 4, gt)
    assert sorted(set(weights[labels == 1].tolist())) == [0.75, 1.0]
    assert (weights[labels != 1] == 1).all()


def test_registered_under_its_name():
    assert PROPOSAL_GENERATOR_REGISTRY.get("AFP") is AFP


def test_two_convolutions_and_a_relu_in_each_branch():
    network = afp()
    for branch, channels in ((network.centerness, 1), (network.distances, 4)):
        assert [type(layer).__name__ for layer in branch] == ["Conv2d", "ReLU", "Conv2d"]
        assert branch[2].out_channels == channels


def test_centre_and_ignored_region_have_the_papers_sizes(make_targets):
    points = pixel_centers(40, 40, 4, torch.device("cpu"))
    labels, _ = label_pixels(points, make_targets([(40, 40, 120, 100)], size=(160, 160)))
    labels = labels.view(40, 40)
    offset_x = (pixel_centers(1, 40, 4, torch.device("cpu"))[:, 0] - 80).abs()
    offset_y = (pixel_centers(40, 1, 4, torch.device("cpu"))[:, 1] - 70).abs()
    center = (offset_y[:, None] <= 0.1 * 60) & (offset_x[None] <= 0.1 * 80)
    ignored = (offset_y[:, None] <= 0.25 * 60) & (offset_x[None] <= 0.25 * 80)
    assert torch.equal(labels == 1, center)
    assert torch.equal(labels == -1, ignored & ~center)
    assert torch.equal(labels == 0, ~ignored)


def test_uncertain_box_has_no_centre_region(make_targets):
    points = pixel_centers(40, 40, 4, torch.device("cpu"))
    box = [(40, 40, 120, 100)]
    certain, _ = label_pixels(points, make_targets(box, size=(160, 160)))
    uncertain, _ = label_pixels(points, make_targets(box, [BoxStatus.UNCERTAIN], size=(160, 160)))
    assert (uncertain != 1).all()
    assert torch.equal(uncertain == -1, certain != 0)


def test_a_lesion_inside_an_uncertain_region_stays_a_lesion(make_targets):
    points = pixel_centers(40, 40, 4, torch.device("cpu"))
    gt = make_targets(
        [(40, 40, 120, 100), (60, 60, 90, 90)], [BoxStatus.UNCERTAIN, BoxStatus.LESION], size=(160, 160)
    )
    labels, _ = label_pixels(points, gt)
    assert (labels == 1).any()


@settings(max_examples=50, deadline=None)
@given(x=st.floats(0, 100), y=st.floats(0, 100), w=st.floats(1, 60), h=st.floats(1, 60), ratio=st.floats(0.05, 1))
def test_every_lesion_has_a_centre_pixel(x, y, w, h, ratio):
    points = pixel_centers(40, 40, 4, torch.device("cpu"))
    box = torch.tensor([[x, y, x + w, y + h]])
    inside = pixels_in_region(points, box, ratio, 4)[:, 0]
    assert inside.any()
    center = (box[0, :2] + box[0, 2:]) / 2
    assert (
        (points[inside] - center).abs() <= torch.tensor([max(w * ratio / 2, 4), max(h * ratio / 2, 4)]) + 1e-4
    ).all()


@settings(max_examples=50, deadline=None)
@given(x=st.floats(0, 90), y=st.floats(0, 90), w=st.floats(8, 60), h=st.floats(8, 60))
def test_distances_and_boxes_are_inverse(x, y, w, h):
    points = pixel_centers(40, 40, 4, torch.device("cpu"))
    gt = Instances((160, 160), gt_boxes=Boxes(torch.tensor([[x, y, x + w, y + h]])), gt_status=torch.tensor([0]))
    labels, distances = label_pixels(points, gt)
    boxes = distances_to_boxes(distances, points, 4)[labels == 1]
    torch.testing.assert_close(boxes, gt.gt_boxes.tensor.expand_as(boxes), atol=1e-3, rtol=0)


def test_overlapping_lesions_regress_to_the_smaller(make_targets):
    points = pixel_centers(40, 40, 4, torch.device("cpu"))
    gt = make_targets([(0, 0, 160, 160), (70, 70, 90, 90)], size=(160, 160))
    labels, distances = label_pixels(points, gt)
    at_center = ((points - 78).abs() < 1).all(dim=1)
    assert labels[at_center].item() == 1
    torch.testing.assert_close(
        distances_to_boxes(distances, points, 4)[at_center], torch.tensor([[70.0, 70.0, 90.0, 90.0]])
    )


def run(network, gt, feature=None):
    feature = torch.randn(1, 6, 16, 20) if feature is None else feature
    images = ImageList(torch.zeros(1, 9, 64, 80), [(64, 80)])
    return network(images, {"p2": feature}, gt)


def test_size_loss_is_l1_inside_the_centre_region_alone(make_targets):
    network = afp(size_loss_weight=0.1)
    points = pixel_centers(16, 20, 4, torch.device("cpu"))
    gt = make_targets([(20, 12, 60, 44)])
    labels, target = label_pixels(points, gt)
    logits, distances = torch.zeros(1, 320), torch.zeros(1, 320, 4)
    distances[0] = target + 1000  # far off everywhere ...
    distances[0, labels == 1] = target[labels == 1] + 0.5  # ... but in the centre region
    loss = network.losses(points, logits, distances, [gt])["loss_afp_size"]
    assert loss.item() == pytest.approx(0.1 * 4 * 0.5, rel=1e-4)


def test_no_gradient_in_the_ignored_region(make_targets):
    network = afp()
    points = pixel_centers(16, 20, 4, torch.device("cpu"))
    gt = make_targets([(20, 12, 60, 44)])
    labels, _ = label_pixels(points, gt)
    logits = torch.zeros(1, 320, requires_grad=True)
    network.losses(points, logits, torch.zeros(1, 320, 4), [gt])["loss_afp_center"].backward()
    gradient = logits.grad[0]
    assert (labels == -1).any() and (gradient[labels == -1] == 0).all()
    assert (gradient[labels == 1] < 0).all() and (gradient[labels == 0] > 0).all()


def test_negative_slice_gives_finite_losses(make_targets):
    _, losses = run(afp(), [make_targets([])])
    assert losses["loss_afp_size"].item() == 0
    assert 0 < losses["loss_afp_center"].item() < 1e4


def test_proposals_are_sorted_inside_the_image_and_limited():
    network = afp(pre_nms_topk=(7, 5)).eval()
    proposals, losses = run(network, None)
    assert losses == {}
    (proposal,) = proposals
    assert len(proposal) <= 5
    assert (proposal.objectness_logits.diff() <= 0).all()
    box = proposal.proposal_boxes.tensor
    assert (box >= 0).all() and (box[:, 2] <= 80).all() and (box[:, 3] <= 64).all()


def test_score_floor_holds_at_inference_only():
    network = afp(score_thresh_test=0.99)
    assert run(network, None)[0][0].objectness_logits.isfinite().any()
    assert (run(network.eval(), None)[0][0].objectness_logits == NOT_A_BOX).all()


def test_a_hard_negatives_centre_region_weighs_16_times(make_targets):
    points = pixel_centers(16, 20, 4, torch.device("cpu"))
    gt = make_targets([(20, 12, 60, 44), (4, 40, 20, 60)], [BoxStatus.LESION, BoxStatus.HARD_NEGATIVE])
    gradients = []
    for weight in (1.0, 16.0):
        network = afp(hard_negative_weight=weight)
        logits = torch.zeros(1, 320, requires_grad=True)
        network.losses(points, logits, torch.zeros(1, 320, 4), [gt])["loss_afp_center"].backward()
        gradients.append(logits.grad[0])
    region = pixels_in_region(points, torch.tensor([[4.0, 40, 20, 60]]), 0.2, 4)[:, 0]
    assert region.any() and (gradients[0][region] > 0).all()
    torch.testing.assert_close(gradients[1][region], 16 * gradients[0][region])
    assert torch.equal(gradients[1][~region], gradients[0][~region])


def test_a_hard_negative_overwrites_what_is_under_it(make_targets):
    """As in Lesion-Harvester's Eq. 8; without suppression it is not looked at."""
    points = pixel_centers(16, 20, 4, torch.device("cpu"))
    gt = make_targets([(20, 12, 60, 44), (20, 12, 60, 44)], [BoxStatus.UNCERTAIN, BoxStatus.HARD_NEGATIVE])
    region = pixels_in_region(points, gt.gt_boxes.tensor[:1], 0.2, 4)[:, 0]
    for weight, expected in ((1.0, 0), (16.0, int(region.sum()))):
        logits = torch.zeros(1, 320, requires_grad=True)
        afp(hard_negative_weight=weight).losses(points, logits, torch.zeros(1, 320, 4), [gt])[
            "loss_afp_center"
        ].backward()
        assert (logits.grad[0][region] > 0).sum() == expected
