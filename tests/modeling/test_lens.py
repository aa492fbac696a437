"""LENS as a whole: what a step updates, the losses of Eq. 1, the experts' fusion."""

import copy

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from lens_d2.engine import build_optimizer
from lens_d2.modeling import FUSED, LENS, LENSROIHeads
from lens_d2.modeling.meta_arch import fuse_experts
from lens_d2.structures.status import BoxStatus

EXPERTS = ("deeplesion", "luna", "lits", "nih_ln")


def test_registered_under_their_names():
    assert META_ARCH_REGISTRY.get("LENS") is LENS
    assert ROI_HEADS_REGISTRY.get("LENSROIHeads") is LENSROIHeads


def step(model, optimizer, batch):
    with EventStorage():
        loss = sum(model(batch).values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def owned_by(name, expert):
    return name.startswith((f"proposal_generators.{expert}.", f"roi_heads.box_predictors.{expert}."))


@pytest.mark.parametrize("expert", EXPERTS)
def test_a_step_leaves_the_other_experts_bit_identical(small_cfg, small_lens, make_batch, expert):
    optimizer = build_optimizer(small_cfg, small_lens)
    for warm in EXPERTS:  # all have optimiser state
        step(small_lens, optimizer, make_batch(warm))
    before = {n: p.detach().clone() for n, p in small_lens.named_parameters()}
    state = {n: copy.deepcopy(optimizer.state[p]) for n, p in small_lens.named_parameters()}
    step(small_lens, optimizer, make_batch(expert, seed=1))
    changed = set()
    for name, parameter in small_lens.named_parameters():
        same = torch.equal(parameter, before[name]) and all(
            torch.equal(optimizer.state[parameter][key], value) for key, value in state[name].items()
        )
        if not same:
            changed.add(name)
        elif any(owned_by(name, other) for other in EXPERTS):
            assert not owned_by(name, expert), f"{name} did not learn"
    assert not [n for n in changed if any(owned_by(n, other) for other in EXPERTS if other != expert)]
    assert any(n.startswith("backbone.") for n in changed) and any("box_head" in n for n in changed)


def test_the_four_losses_of_equation_1(small_lens, make_batch):
    with EventStorage() as storage:
        losses = small_lens(make_batch("luna"))
    assert set(losses) == {"loss_afp_center", "loss_afp_size", "loss_cls", "loss_box_reg"}
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())
    assert storage.latest()["luna/total_loss"][0] == pytest.approx(float(sum(losses.values())), rel=1e-5)


@pytest.mark.parametrize("key, loss", [("SIZE", "loss_afp_size"), ("BOX", "loss_box_reg")])
def test_weights_of_equation_1_are_config_keys(small_cfg, make_batch, key, loss):
    values = []
    for factor in (1.0, 3.0):
        if key == "SIZE":
            small_cfg.MODEL.LENS.SIZE_LOSS_WEIGHT = 0.1 * factor
        else:
            small_cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT = 10.0 * factor
        torch.manual_seed(0)
        model = build_model(small_cfg)
        torch.manual_seed(1)
        with EventStorage():
            values.append(model(make_batch("lits"))[loss].item())
    assert values[1] == pytest.approx(3 * values[0], rel=1e-5)


def test_a_batch_that_mixes_datasets_is_refused(small_lens, make_batch):
    mixed = make_batch("luna", 1) + make_batch("lits", 1)
    with EventStorage(), pytest.raises(ValueError, match="lits.*luna"):
        small_lens(mixed)


def test_inference_gives_the_fused_boxes_and_every_experts(small_lens, make_batch):
    small_lens.eval()
    with torch.no_grad():
        (result,) = small_lens(make_batch("luna", 1))
    assert list(result["experts"]) == [FUSED, *EXPERTS]
    assert result["instances"] is result["experts"][FUSED]
    for column, name in enumerate(EXPERTS):
        found = result["experts"][name]
        assert len(found) and found.expert_scores.shape == (len(found), 4)
        assert torch.equal(found.scores, found.expert_scores[:, column])
    fused = result["experts"][FUSED]
    assert (fused.scores[:, None] <= fused.expert_scores.amax(dim=1, keepdim=True)).all()


def test_one_expert_alone_is_a_config_key(small_cfg, make_batch):
    small_cfg.MODEL.LENS.OUTPUT = "lits"
    model = build_model(small_cfg).eval()
    with torch.no_grad():
        (result,) = model(make_batch("luna", 1))
    assert result["instances"] is result["experts"]["lits"]
    small_cfg.MODEL.LENS.OUTPUT = "kits"
    with pytest.raises(ValueError, match="kits"):
        build_model(small_cfg)


def detections(boxes, scores):
    return Instances((100, 100), pred_boxes=Boxes(torch.tensor(boxes)), scores=torch.tensor(scores))


def test_fusion_keeps_the_best_of_overlapping_boxes():
    fused = fuse_experts(
        {
            "a": detections([[10.0, 10, 30, 30], [60, 60, 80, 80]], [0.6, 0.3]),
            "b": detections([[11.0, 11, 31, 31]], [0.8]),
        },
        nms_thresh=0.5,
        topk=10,
    )
    assert fused.scores.tolist() == pytest.approx([0.8, 0.3])
    assert fused.pred_boxes.tensor.tolist() == [[11, 11, 31, 31], [60, 60, 80, 80]]


def proposals_of(boxes):
    return Instances(
        (64, 80), proposal_boxes=Boxes(torch.tensor(boxes)), objectness_logits=torch.zeros(len(boxes))
    )


def test_uncertain_regions_are_not_sampled(small_lens, make_targets):
    heads = small_lens.roi_heads
    targets = make_targets([(24, 24, 44, 40), (50, 10, 70, 30)], [BoxStatus.LESION, BoxStatus.UNCERTAIN])
    proposals = proposals_of([[25.0, 25, 44, 40], [51, 11, 70, 30], [52, 12, 60, 20], [2, 2, 12, 12]])
    with EventStorage():
        (sampled,) = heads.label_and_sample_proposals([proposals], [targets])
    boxes = sampled.proposal_boxes.tensor.tolist()
    assert [25, 25, 44, 40] in boxes and [2, 2, 12, 12] in boxes and [24, 24, 44, 40] in boxes
    assert [51, 11, 70, 30] not in boxes  # on the uncertain region
    assert [52, 12, 60, 20] not in boxes  # inside it
    assert [50, 10, 70, 30] not in boxes  # and the region itself is no positive
    positive = sampled.gt_classes == 0
    assert positive.sum() == 2 and (sampled.gt_boxes.tensor[positive] == torch.tensor([24.0, 24, 44, 40])).all()


def test_intensities_are_normalised_and_padded_with_air(small_lens):
    images = small_lens.preprocess_image([torch.full((9, 20, 30), 50.0)])
    assert images.tensor.shape == (1, 9, 32, 32)
    assert images.image_sizes == [(20, 30)]
    assert (images.tensor[0, :, :20, :30] == 0).all() and (images.tensor[0, :, 20:] == -50).all()
