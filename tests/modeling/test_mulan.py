"""MULAN's heads: masks from RECIST marks, tags from labels, what learns from which proposals."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from lens_d2.modeling.mulan import recist_outline

LESION, OTHER = (24.0, 24.0, 44.0, 40.0), (50.0, 8.0, 66.0, 28.0)
CROSS = [[24, 32], [44, 32], [34, 24], [34, 40]]  # its axes


@pytest.fixture
def mulan(small_cfg):
    def build(*opts):
        small_cfg.merge_from_list(
            ["MODEL.LENS.EXPERTS", ("deeplesion",), "MODEL.PROPOSAL_GENERATOR.NAME", "LENSRPN"]
            + ["MODEL.ROI_HEADS.NAME", "MULANROIHeads", "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"]
            + ["MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 14, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1]
            + ["MODEL.ROI_MASK_HEAD.CONV_DIM", 8, "MODEL.MULAN.TAG_FC_DIM", 8, "MODEL.MULAN.NUM_TAGS", 3]
            + ["MODEL.MULAN.MASK_ON", True, "MODEL.MULAN.TAG_ON", True, *opts]
        )
        torch.manual_seed(0)
        return build_model(small_cfg)

    return build


@pytest.fixture
def batch_of(make_batch, make_targets):
    """Two samples of two lesions; the first has a mark and the labels of ``weights``, the second neither."""

    def make(weights=((1.0, 2.0, 0.0), (0.0, 0.0, 0.0)), marked=True):
        batch = make_batch("deeplesion")
        for sample in batch:
            sample["instances"] = targets = make_targets([LESION, OTHER])
            targets.gt_recist = torch.full((2, 4, 2), torch.nan)
            if marked:
                targets.gt_recist[0] = torch.tensor(CROSS, dtype=torch.float32)
            targets.gt_tags = torch.tensor([[True, False, True], [True, True, True]])
            targets.gt_tag_weights = torch.tensor(weights)
        return batch

    return make


def test_an_ellipse_of_a_cross_in_its_middle():
    outline = recist_outline(np.array([[10, 20], [50, 20], [30, 12], [30, 28]]))
    np.testing.assert_allclose(((outline - [30, 20]) ** 2 / [400, 64]).sum(axis=1), 1)
    assert len(np.unique(outline.round(6), axis=0)) == len(outline)


def test_each_quarter_has_its_own_half_axes():
    """The outline passes all four ends, around a crossing that is nobody's middle, and does not cross itself."""
    ends = np.array([[10.0, 20], [50, 20], [20, 12], [20, 40]])
    outline = recist_outline(ends)
    assert all(np.abs(outline - end).sum(axis=1).min() < 1e-9 for end in ends)
    expected = np.pi / 4 * (10 * 8 + 10 * 20 + 30 * 8 + 30 * 20)
    (area,) = PolygonMasks([[outline.ravel()]]).area().tolist()
    assert area == pytest.approx(expected, rel=0.01)
    turned = recist_outline(ends[[1, 0, 3, 2]])
    assert PolygonMasks([[turned.ravel()]]).area().item() == pytest.approx(area, rel=1e-6)


@pytest.mark.parametrize("scale, shift", [((0.8, 1.1), (3, -4)), ((-1, 1), (90, 0))])
def test_the_outline_of_a_moved_mark_is_the_moved_outline(scale, shift):
    ends = np.array([[10.0, 20], [48, 30], [24, 40], [32, 10]])
    np.testing.assert_allclose(recist_outline(ends * scale + shift), recist_outline(ends) * scale + shift)


@pytest.mark.parametrize("short", [[[5, 7], [9, 7]], [[5, 5], [9, 5]], [[7, 5], [7, 5]]])
def test_a_mark_that_is_no_cross_has_a_finite_outline(short):
    assert np.isfinite(recist_outline(np.array([[5, 5], [9, 5], *short], dtype=float))).all()


def test_losses_of_three_heads_and_two_generators_outputs(mulan, batch_of):
    model = mulan()
    with EventStorage():
        losses = model(batch_of())
    assert set(losses) == {
        "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask", "loss_tag",
    }  # fmt: skip
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if n.startswith("roi_heads."))


@pytest.mark.parametrize("off, head", [("MASK_ON", "mask"), ("TAG_ON", "tag")])
def test_each_head_is_a_switch(mulan, batch_of, off, head):
    model = mulan(f"MODEL.MULAN.{off}", False)
    with EventStorage():
        losses = model(batch_of())
    assert f"loss_{head}" not in losses and len(losses) == 5
    assert not [name for name, _ in model.named_parameters() if f"{head}_head" in name]


@pytest.mark.parametrize("key", ["MASK", "TAG"])
def test_weights_of_the_losses_are_config_keys(mulan, batch_of, key):
    values = []
    for weight in (1.0, 3.0):
        model = mulan(f"MODEL.MULAN.{key}_LOSS_WEIGHT", weight)
        torch.manual_seed(1)
        with EventStorage():
            values.append(model(batch_of())[f"loss_{key.lower()}"].item())
    assert values[1] == pytest.approx(3 * values[0], rel=1e-5)


@pytest.mark.parametrize("lesions", [2, 0])
def test_lesions_without_a_mark_or_labels_and_slices_without_lesions_teach_nothing(mulan, batch_of, lesions):
    model, batch = mulan(), batch_of(weights=((0.0,) * 3,) * 2, marked=False)
    for sample in batch:
        sample["instances"] = sample["instances"][:lesions]
    with EventStorage():
        losses = model(batch)
    assert losses["loss_mask"] == 0 and losses["loss_tag"] == 0
    sum(losses.values()).backward()


def test_the_tag_loss_is_the_mean_over_labels_that_have_a_weight(mulan, make_targets):
    heads = mulan().roi_heads
    with torch.no_grad():
        heads.tag_head[-1].weight.zero_()
        heads.tag_head[-1].bias.zero_()  # every score is a half
    lesions = make_targets([LESION, OTHER])
    lesions.proposal_boxes = lesions.gt_boxes
    lesions.gt_tags = torch.tensor([[True, False, True]] * 2)
    lesions.gt_tag_weights = torch.tensor([[1.0, 3, 0], [0, 2, 0]])
    loss = heads._tag_loss({"p2": torch.rand(1, 16, 16, 20)}, [lesions])
    assert loss.item() == pytest.approx(np.log(2) * (1 + 3 + 2) / 3, rel=1e-6)


def test_the_mask_head_learns_the_ellipse(mulan):
    heads = mulan().roi_heads
    feature = {"p2": torch.rand(1, 16, 16, 20)}
    lesion = Instances((64, 80), proposal_boxes=Boxes(torch.tensor([LESION])))
    lesion.gt_classes = torch.zeros(1, dtype=torch.int64)
    lesion.gt_recist = torch.tensor([CROSS], dtype=torch.float32)
    optimizer = torch.optim.Adam([*heads.mask_head.parameters()], lr=0.02)
    with EventStorage():
        for _ in range(60):
            loss = heads._mask_loss(feature, [lesion])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = Instances((64, 80), pred_boxes=Boxes(torch.tensor([LESION])), pred_classes=torch.zeros(1).long())
    with torch.no_grad():
        (found,) = heads.eval().forward_with_given_boxes(feature, [found])
    y, x = torch.meshgrid(*[(torch.arange(28) + 0.5) / 14 - 1] * 2, indexing="ij")
    assert found.pred_masks.shape == (1, 1, 28, 28) and found.tag_scores.shape == (1, 3)
    assert ((found.pred_masks[0, 0] > 0.5) == (x**2 + y**2 < 1)).float().mean() > 0.9


def test_detections_have_masks_and_tags(mulan, batch_of):
    model = mulan("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0).eval()
    with torch.no_grad():
        results = model(batch_of())
    for result in results:
        found = result["instances"]
        assert len(found) and found.pred_masks.shape == (len(found), 1, 28, 28)
        assert found.tag_scores.shape == (len(found), 3) and found.expert_scores.shape == (len(found), 1)
