"""The detection head: which proposals it samples, as what; in a plain Detectron2 detector."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from lens_d2 import add_lens_config
from lens_d2.modeling.selection import NOT_A_BOX
from lens_d2.structures.status import BoxStatus

LESION = (24.0, 24.0, 44.0, 40.0)


STAGES = ["res2", "res3", "res4", "res5"]
APART = [[2.0, 2, 12, 12], [60, 44, 76, 60]]


def test_uncertain_regions_are_not_sampled(small_lens, sample_proposals, make_targets):
    targets = make_targets([(24, 24, 44, 40), (50, 10, 70, 30)], [BoxStatus.LESION, BoxStatus.UNCERTAIN])
    boxes = [[25.0, 25, 44, 40], [51, 11, 70, 30], [52, 12, 60, 20], [2, 2, 12, 12]]
    sampled = sample_proposals(small_lens.roi_heads, targets, boxes)
    boxes = sampled.proposal_boxes.tensor.tolist()
    assert [25, 25, 44, 40] in boxes and [2, 2, 12, 12] in boxes and [24, 24, 44, 40] in boxes
    assert [51, 11, 70, 30] not in boxes  # on the uncertain region
    assert [52, 12, 60, 20] not in boxes  # inside it
    assert [50, 10, 70, 30] not in boxes  # and the region itself is no positive
    positive = sampled.gt_classes == 0
    assert positive.sum() == 2 and (sampled.gt_boxes.tensor[positive] == torch.tensor([24.0, 24, 44, 40])).all()


def test_hard_negatives_are_a_class_of_their_own(heads_of, sample_proposals, make_targets):
    negative = (50.0, 10.0, 70.0, 30.0)
    target = make_targets([LESION, negative], [BoxStatus.LESION, BoxStatus.HARD_NEGATIVE])
    of_class = {}
    for number in (1, 2):
        sampled = sample_proposals(heads_of(num_classes=number), target, [*APART, list(negative)])
        boxes = map(tuple, sampled.proposal_boxes.tensor.tolist())
        of_class[number] = dict(zip(boxes, sampled.gt_classes.tolist(), strict=True))
    background = {tuple(box) for box in APART}
    assert of_class[1] == {LESION: 0, negative: 1, **dict.fromkeys(background, 1)}
    assert of_class[2] == {LESION: 0, negative: 1, **dict.fromkeys(background, 2)}


def test_with_the_extra_class_lesions_alone_are_detected(small_cfg, make_batch):
    small_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    torch.manual_seed(0)
    model = build_model(small_cfg)
    with EventStorage():
        losses = model(make_batch("lits"))
    assert all(torch.isfinite(value) for value in losses.values())
    with torch.no_grad():
        (result,) = model.eval()(make_batch("lits", 1))
    found = result["experts"]["lits"]
    assert len(found) and found.pred_boxes.tensor.shape[1] == 4 and (found.pred_classes == 0).all()


def test_positives_and_negatives_of_all_images_are_counted(small_lens, storage, make_targets):
    proposals = [
        Instances((64, 80), proposal_boxes=Boxes(torch.tensor(boxes)), objectness_logits=torch.zeros(len(boxes)))
        for boxes in ([list(LESION), *APART], APART)
    ]
    small_lens.roi_heads.label_and_sample_proposals(proposals, [make_targets([LESION]), make_targets([])])
    latest = storage.latest()
    # The lesion itself is a proposal, too.
    assert (latest["roi_head/num_fg_samples"][0], latest["roi_head/num_bg_samples"][0]) == (1, 2)


def test_a_soft_lesion_weighs_less_in_the_classification(small_lens, sample_proposals, make_targets):
    soft, plain = make_targets([LESION]), make_targets([LESION])
    soft.gt_weight = torch.tensor([0.5])
    sampled = sample_proposals(small_lens.roi_heads, soft, APART)
    assert sampled.weight[sampled.gt_classes == 0].tolist() == [0.5]
    assert (sampled.weight[sampled.gt_classes == 1] == 1).all()
    assert not sample_proposals(small_lens.roi_heads, plain, APART).has("weight")
    losses = []
    for target in (soft, plain):
        proposals = Instances(
            (64, 80), proposal_boxes=Boxes(torch.tensor(APART)), objectness_logits=torch.zeros(2)
        )
        feature = {"p2": torch.ones(1, 16, 16, 20)}
        both = [proposals, proposals[:0]], [target, make_targets([])]  # an image without a lesion beside it
        feature = {"p2": feature["p2"].expand(2, -1, -1, -1)}
        losses.append(small_lens.roi_heads(None, feature, *both, expert="luna")[1])
    assert losses[0]["loss_cls"] < losses[1]["loss_cls"]
    assert losses[0]["loss_box_reg"] == losses[1]["loss_box_reg"]


@pytest.fixture
def plain_cfg():
    """Detectron2's Faster R-CNN, ResNet-18 and FPN, with the proposals and the head of LENS."""
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.LENS.EXPERTS", ()]
        + ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.BACKBONE.FREEZE_AT", 0]
        + ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.NORM", "BN"]
        + ["MODEL.RESNETS.OUT_FEATURES", STAGES, "MODEL.FPN.IN_FEATURES", STAGES]
        + ["MODEL.FPN.OUT_CHANNELS", 16, "MODEL.PROPOSAL_GENERATOR.NAME", "AFP", "MODEL.AFP.CONV_DIM", 8]
        + ["MODEL.ROI_HEADS.NAME", "LENSROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", ["p2"]]
        + ["MODEL.ROI_HEADS.NUM_CLASSES", 1, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0]
        + ["MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 1]
        + ["MODEL.ROI_BOX_HEAD.FC_DIM", 16]
    )
    return cfg


def test_boxes_that_are_no_proposals_stay_outside_detectron2s_own_detector(plain_cfg):
    heads = build_model(plain_cfg).eval().roi_heads
    boxes = torch.tensor([[0.0, 0, 20, 20], [30, 30, 50, 50]])
    proposals = Instances((64, 80), proposal_boxes=Boxes(boxes), objectness_logits=torch.tensor([1.0, NOT_A_BOX]))
    features = {"p2": torch.ones(1, 16, 16, 20)}
    (found,), _ = heads(None, features, [proposals])
    (alone,), _ = heads(None, features, [proposals[:1]])
    torch.testing.assert_close(found.pred_boxes.tensor, alone.pred_boxes.tensor)


def test_it_learns_in_detectron2s_own_detector(plain_cfg, storage, make_targets):
    """Random images of three channels; boxes have no status, batches no expert."""
    torch.manual_seed(0)
    model = build_model(plain_cfg)
    target = make_targets([LESION])
    target.remove("gt_status")
    batch = [{"image": torch.rand(3, 64, 80) * 255, "instances": target} for _ in range(2)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(4):
        losses = model(batch)
        assert set(losses) == {"loss_afp_center", "loss_afp_size", "loss_cls", "loss_box_reg"}
        totals.append(sum(losses.values()))
        optimizer.zero_grad()
        totals[-1].backward()
        assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("backbone."))
        optimizer.step()
    assert totals[-1] < totals[0]
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest["afp/num_pos_pixels"] >= 1 and latest["afp/num_neg_pixels"] > 100
    assert latest["roi_head/num_fg_samples"] >= 1
    with torch.no_grad():
        results = model.eval()([{"image": x["image"], "height": 128, "width": 160} for x in batch])
    for result in results:
        found = result["instances"]
        assert len(found) and found.image_size == (128, 160) and (found.pred_classes == 0).all()
        assert torch.equal(found.scores, found.expert_scores[:, 0])


def test_boxes_keep_their_place_in_maps_of_half_precision(small_lens):
    """bfloat16 has whole numbers up to 256, and even ones beyond."""
    heads = small_lens.roi_heads
    maps = torch.randn(1, 16, 16, 128).bfloat16()
    boxes = torch.tensor([[301.5, 20.25, 322.75, 44.5], [411.25, 3.5, 425.5, 30.75]])
    proposals = [Instances((64, 512), proposal_boxes=Boxes(boxes))]
    half, single = (heads._box_features({"p2": features}, proposals) for features in (maps, maps.float()))
    assert torch.equal(half, single)


def test_several_experts_need_a_name(small_lens, make_targets):
    feature = {"p2": torch.randn(1, 16, 16, 20)}
    proposals = [Instances((64, 80), proposal_boxes=Boxes(torch.tensor([LESION])))]
    with pytest.raises(ValueError, match="experts deeplesion, luna, lits, nih_ln: name one"):
        small_lens.roi_heads(None, feature, proposals)
    (found,), losses = small_lens.roi_heads(None, feature, proposals, expert="luna")
    assert losses == {} and found.expert_scores.shape[1] == 4
