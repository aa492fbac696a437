"""Second-stage treatments of missing labels (Lesion-Harvester, Table IV)."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from lens_d2.modeling.missing_labels import MISSING_LABELS

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


def test_hard_sampling_takes_overlapping_background_alone(heads_of, sample_proposals, make_targets):
    sampled = sample_proposals(heads_of("OBHS"), make_targets([LESION]), [TOUCHING, *APART])
    assert sampled.gt_classes.tolist() == [0, 1]  # the lesion itself, and what touches it
    assert sampled.proposal_boxes.tensor[1].tolist() == TOUCHING
    assert not len(sample_proposals(heads_of("OBHS"), make_targets([]), APART))


@pytest.mark.parametrize("name, touching, apart", [("OBSS", 0.953, 0.25), ("MOBHS", 2.0, 1.0)])
def test_soft_treatments_sample_as_ever_and_weigh_the_loss(
    heads_of, sample_proposals, make_targets, name, touching, apart
):
    heads = heads_of(name)
    sampled = sample_proposals(heads, make_targets([LESION]), [TOUCHING, *APART])
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
