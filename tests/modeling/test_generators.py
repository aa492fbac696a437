"""Proposal generators in place of AFP (LENS, Table II): for one expert and for several, in one and two stages."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, build_proposal_generator
from detectron2.structures import Boxes, ImageList, pairwise_iou
from detectron2.utils.events import EventStorage

from lens_d2.io.errors import DataError
from lens_d2.modeling import AFP, FCOS, LENSRPN, CenterNet
from lens_d2.structures.detections import FUSED
from lens_d2.structures.status import BoxStatus

GENERATORS = {"AFP": AFP, "CenterNet": CenterNet, "FCOS": FCOS, "LENSRPN": LENSRPN}


ONE = ("deeplesion",)


FOUR = ("deeplesion", "luna", "lits", "nih_ln")


every_generator = pytest.mark.parametrize("name", GENERATORS)


@pytest.fixture
def model_of(small_cfg):
    def build(name, experts=FOUR, one_stage=False):
        small_cfg.MODEL.PROPOSAL_GENERATOR.NAME = name
        small_cfg.MODEL.LENS.EXPERTS = experts
        small_cfg.MODEL.LENS.ONE_STAGE = one_stage
        torch.manual_seed(0)
        return build_model(small_cfg)

    return build


@every_generator
@pytest.mark.parametrize("experts", [ONE, FOUR], ids=["one", "four"])
@pytest.mark.parametrize("one_stage", [False, True], ids=["two_stage", "one_stage"])
def test_a_step_teaches_the_batchs_own_expert_alone(model_of, make_batch, name, experts, one_stage):
    model = model_of(name, experts, one_stage)
    assert PROPOSAL_GENERATOR_REGISTRY.get(name) is GENERATORS[name]
    assert all(type(generator) is GENERATORS[name] for generator in model.proposal_generators.values())
    with EventStorage():
        losses = model(make_batch(experts[-1]))
    assert all(torch.isfinite(value) for value in losses.values())
    assert ("loss_cls" in losses) != one_stage
    sum(losses.values()).backward()
    taught = [n for n, p in model.named_parameters() if p.grad is not None]
    own = f"proposal_generators.{experts[-1]}."
    generators = [n for n in taught if n.startswith("proposal_generators.")]
    assert generators == [n for n, p in model.named_parameters() if n.startswith(own)]
    assert any(n.startswith("backbone.") for n in taught)
    assert any(n.startswith("roi_heads.box_head") for n in taught) != one_stage


@every_generator
@pytest.mark.parametrize("one_stage", [False, True], ids=["two_stage", "one_stage"])
def test_detections_of_every_expert(model_of, make_batch, name, one_stage):
    model = model_of(name, FOUR, one_stage).eval()
    model.score_thresh = -1.0
    model.pixel_std.fill_(255.0)  # so that an untrained network's boxes have sizes
    with torch.no_grad():
        (result,) = model(make_batch("luna", 1))
    assert list(result["experts"]) == [FUSED, *FOUR]
    for found in result["experts"].values():
        assert len(found) and found.expert_scores.shape == (len(found), 4)
        boxes = found.pred_boxes.tensor
        assert (boxes >= 0).all() and (boxes <= torch.tensor([80, 64, 80, 64])).all()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("AFP", "MODEL.AFP.IN_FEATURE", "p3"),
        ("CenterNet", "MODEL.CENTERNET.IN_FEATURE", "p3"),
        ("FCOS", "MODEL.FCOS.IN_FEATURE", "p3"),
        ("LENSRPN", "MODEL.RPN.IN_FEATURES", ["p2", "p3"]),
        ("AFP", "MODEL.ROI_HEADS.IN_FEATURES", ["p3"]),
    ],
)
def test_a_feature_map_that_the_backbone_lacks_is_a_line(model_of, small_cfg, name, key, value):
    small_cfg.merge_from_list([key, value])
    with pytest.raises(DataError, match=f"{key}: 'p3'; the backbone gives p2$"):
        model_of(name)


def build(cfg, name):
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = name
    torch.manual_seed(0)
    return build_proposal_generator(cfg, {"p2": ShapeSpec(channels=16, stride=4)})


IMAGES = ImageList(torch.zeros(1, 9, 64, 80), [(64, 80)])


@every_generator
def test_an_uncertain_picture_has_no_loss_and_a_slice_without_lesions_does(small_cfg, make_targets, name):
    generator = build(small_cfg, name)
    feature = torch.randn(1, 16, 16, 20)
    picture = make_targets([(-160, -128, 240, 192)], [BoxStatus.UNCERTAIN])
    with EventStorage():
        _, none = generator(IMAGES, {"p2": feature}, [picture])
        _, some = generator(IMAGES, {"p2": feature}, [make_targets([])])
    assert sum(none.values()).item() == 0 and sum(some.values()).item() > 0


@every_generator
def test_a_lesion_is_learnt_inside_an_uncertain_region(small_cfg, make_targets, name):
    generator = build(small_cfg, name)
    both = make_targets([(0, 0, 64, 60), (20, 16, 44, 40)], [BoxStatus.UNCERTAIN, BoxStatus.LESION])
    with EventStorage():
        _, losses = generator(IMAGES, {"p2": torch.randn(1, 16, 16, 20)}, [both])
    assert all(value.item() > 0 for value in losses.values())


@every_generator
def test_it_learns_to_propose_a_lesion(small_cfg, make_targets, name):
    generator = build(small_cfg, name)
    box = torch.tensor([[20.0, 16, 44, 40]])
    feature = torch.randn(1, 16, 16, 20)
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.02)
    with EventStorage():
        for _ in range(40):
            optimizer.zero_grad()
            _, losses = generator(IMAGES, {"p2": feature}, [make_targets(box.tolist())])
            sum(losses.values()).backward()
            optimizer.step()
    (proposals,), losses = generator.eval()(IMAGES, {"p2": feature})
    best = proposals[proposals.objectness_logits.argmax().item()]
    assert losses == {} and pairwise_iou(best.proposal_boxes, Boxes(box)).item() > 0.5


@every_generator
@pytest.mark.parametrize("num_classes", [1, 2])
def test_hard_negatives_are_proposed_if_they_are_a_class(model_of, small_cfg, make_targets, name, num_classes):
    """ULDor: what the second class is to learn must not be suppressed by the generator."""
    small_cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    model = model_of(name, ONE)
    taught = []
    generator = model.proposal_generators["deeplesion"]
    generator.register_forward_pre_hook(lambda module, args: taught.extend(args[2]))
    gt = make_targets([(20, 16, 44, 40), (50, 10, 70, 30)], [BoxStatus.LESION, BoxStatus.HARD_NEGATIVE])
    with EventStorage():
        model([{"image": torch.rand(9, 64, 80) * 255, "instances": gt, "expert": "deeplesion"}])
    hard_negative = BoxStatus.HARD_NEGATIVE if num_classes == 1 else BoxStatus.LESION
    assert [x.gt_status.tolist() for x in taught] == [[BoxStatus.LESION, hard_negative]]
    assert gt.gt_status.tolist() == [BoxStatus.LESION, BoxStatus.HARD_NEGATIVE]  # the head's own are unchanged


@pytest.mark.parametrize("num_classes, labels", [(1, [1, 0]), (2, [1, 1])])
def test_rpns_anchors_on_hard_negatives(model_of, small_cfg, make_targets, monkeypatch, num_classes, labels):
    small_cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    model, boxes = model_of("LENSRPN", ONE), [(20, 16, 44, 40), (50, 10, 70, 30)]
    found, anchors = [], Boxes(torch.tensor(boxes, dtype=torch.float32))
    generator = model.proposal_generators["deeplesion"]
    original = generator.label_and_sample_anchors

    def label(all_anchors, gt_instances):
        found.append(original([anchors], gt_instances)[0][0].tolist())
        return original(all_anchors, gt_instances)

    monkeypatch.setattr(generator, "label_and_sample_anchors", label)
    gt = make_targets(boxes, [BoxStatus.LESION, BoxStatus.HARD_NEGATIVE])
    with EventStorage():
        model([{"image": torch.rand(9, 64, 80) * 255, "instances": gt, "expert": "deeplesion"}])
    assert found == [labels]
