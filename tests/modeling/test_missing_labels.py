"""Second-stage treatments of missing labels and of hard negatives (Lesion-Harvester, Table IV)."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from lens_d2.modeling.missing_labels import MISSING_LABELS
from lens_d2.structures.status import BoxStatus

LESION = (24.0, 24.0, 44.0, 40.0)
TOUCHING = [24.0, 32, 44, 48]  # IoU 1/3 with the lesion
APART = [[2.0, 2, 12, 12], [60, 44, 76, 60]]
IOU = torch.tensor([0.0, 0.05, 0.1, 0.3, 0.49])


def weights(name):
    return MISSING_LABELS.get(name)(IOU).tolist()


def test_weights_of_background():
    assert weights("OBHS") == [0, 0, 1, 1, 1]
    assert weights("MOBHS") == [1, 1, 2, 2, 2]
    soft = weights("OBSS")
    assert soft[0] == pytest.approx(0.25, abs=1e-3) and soft[-1] == pytest.approx(1, abs=0.01)
    assert soft == sorted(soft)


@pytest.fixture
def heads_of(small_cfg):
    def build(treatment="", num_classes=1):
        small_cfg.MODEL.ROI_HEADS.MISSING_LABELS = treatment
        small_cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
        torch.manual_seed(0)
        return build_model(small_cfg).roi_heads

    return build


def sample(heads, target, boxes):
    boxes = torch.tensor(boxes)
    proposals = Instances((64, 80), proposal_boxes=Boxes(boxes), objectness_logits=torch.zeros(len(boxes)))
    with EventStorage():
        (sampled,) = heads.label_and_sample_proposals([proposals], [target])
    return sampled


def test_hard_sampling_takes_overlapping_background_alone(heads_of, make_targets):
    sampled = sample(heads_of("OBHS"), make_targets([LESION]), [TOUCHING, *APART])
    assert sampled.gt_classes.tolist() == [0, 1]  # the lesion itself, and what touches it
    assert sampled.proposal_boxes.tensor[1].tolist() == TOUCHING
    assert not len(sample(heads_of("OBHS"), make_targets([]), APART))


@pytest.mark.parametrize("name, touching, apart", [("OBSS", 0.953, 0.25), ("MOBHS", 2.0, 1.0)])
def test_soft_treatments_sample_as_ever_and_weigh_the_loss(heads_of, make_targets, name, touching, apart):
    heads = heads_of(name)
    sampled = sample(heads, make_targets([LESION]), [TOUCHING, *APART])
    found = {
        tuple(b): w for b, w in zip(sampled.proposal_boxes.tensor.tolist(), sampled.weight.tolist(), strict=True)
    }
    expected = {LESION: 1.0, tuple(TOUCHING): touching, tuple(APART[0]): apart, tuple(APART[1]): apart}
    assert found == pytest.approx(expected, abs=2e-3)
    logits = torch.randn(4, 2)
    each = torch.nn.functional.cross_entropy(logits, sampled.gt_classes, reduction="none")
    loss = heads._weighted_classification_loss(logits, [sampled])
    assert loss.item() == pytest.approx((each * sampled.weight).sum().item() / 4, rel=1e-5)


@pytest.mark.parametrize("treatment", ["OBHS", "OBSS", "MOBHS"])
def test_a_step_with_each_treatment_even_without_lesions(small_cfg, make_batch, make_targets, treatment):
    small_cfg.MODEL.ROI_HEADS.MISSING_LABELS = treatment
    model = build_model(small_cfg)
    batch = make_batch("luna")
    for target in (batch[0]["instances"], make_targets([])):
        with EventStorage():
            losses = model([{**x, "instances": target} for x in batch])
        assert all(torch.isfinite(value) for value in losses.values())
        sum(losses.values()).backward()


def test_hard_negatives_are_a_class_of_their_own(heads_of, make_targets):
    negative = (50.0, 10.0, 70.0, 30.0)
    target = make_targets([LESION, negative], [BoxStatus.LESION, BoxStatus.HARD_NEGATIVE])
    of_class = {}
    for number in (1, 2):
        sampled = sample(heads_of(num_classes=number), target, [*APART, list(negative)])
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
