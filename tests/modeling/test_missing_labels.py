"""Losses where labels are missing: treatments of background (Lesion-Harvester, Table IV), and risk."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from hypothesis import given
from hypothesis import strategies as st

from lens_d2.modeling import missing_labels
from lens_d2.modeling.missing_labels import MISSING_LABELS, PartialLabels, of_pixels, treatments_of_pixels
from lens_d2.structures.status import BoxStatus

LESION = (24.0, 24.0, 44.0, 40.0)


TOUCHING = [24.0, 32, 44, 48]  # IoU 1/3 with the lesion


APART = [[2.0, 2, 12, 12], [60, 44, 76, 60]]


IOU = torch.tensor([0.0, 0.05, 0.1, 0.3, 0.49])


def weights(name):
    return MISSING_LABELS.get(name)(IOU, torch.full_like(IOU, 0.75)).tolist()


def test_weights_of_background():
    assert weights("OBHS") == [0, 0, 1, 1, 1]
    assert weights("MOBHS") == [1, 1, 2, 2, 2]
    soft = weights("OBSS")
    assert soft[0] == pytest.approx(0.25, abs=1e-3) and soft[-1] == pytest.approx(1, abs=0.01)
    assert soft == sorted(soft)
    assert weights("HIGH_SCORES") == [0.25, 0.25, 1, 1, 1]


def test_a_treatment_of_ones_own_may_serve_pixels():
    assert treatments_of_pixels() == ["HIGH_SCORES"]

    def halved(overlap, score):
        return torch.full_like(score, 0.5)

    MISSING_LABELS.register(of_pixels(halved))
    try:
        assert treatments_of_pixels() == ["HIGH_SCORES", "halved"]
    finally:
        del MISSING_LABELS._obj_map["halved"]


def sampled_by(name, heads_of, sample_proposals, target, boxes, share=1.0):
    heads, labels = heads_of(name), PartialLabels(MISSING_LABELS.get(name) if name else None, share)
    return heads, labels, sample_proposals(heads, target, boxes, labels)


def test_hard_sampling_takes_overlapping_background_alone(heads_of, sample_proposals, make_targets):
    rest = heads_of, sample_proposals
    sampled = sampled_by("OBHS", *rest, make_targets([LESION]), [TOUCHING, *APART])[2]
    assert sampled.gt_classes.tolist() == [0, 1]  # the lesion itself, and what touches it
    assert sampled.proposal_boxes.tensor[1].tolist() == TOUCHING
    assert not len(sampled_by("OBHS", *rest, make_targets([]), APART)[2])


@pytest.mark.parametrize("name", ["OBHS", "MOBHS", "HIGH_SCORES"])
def test_every_treatment_samples_hard_negatives(heads_of, sample_proposals, make_targets, name):
    """A certified one is known to be none, wherever it is."""
    target = make_targets([LESION, APART[0]], [BoxStatus.LESION, BoxStatus.HARD_NEGATIVE])
    sampled = sampled_by(name, heads_of, sample_proposals, target, APART)[2]
    boxes = list(map(tuple, sampled.proposal_boxes.tensor.tolist()))
    assert sampled.certain[boxes.index(tuple(APART[0]))] and sampled.certain.sum() == 1


def test_lesions_stand_for_as_many_as_the_sampled_background_does(heads_of, sample_proposals, make_targets):
    """Of 48 proposals beside the lesion some are sampled, of 24 on it fewer: "seen" is the ratio of both rates."""
    beside = [[40 + x, 4 + y, 44 + x, 8 + y] for x in range(0, 32, 4) for y in range(0, 48, 8)]
    on_lesion = [[x + shift for x in LESION] for shift in (0.01 * i for i in range(24))]
    sampled = sampled_by("", heads_of, sample_proposals, make_targets([LESION]), beside + on_lesion, 0.5)[2]
    background = int((sampled.gt_classes == 1).sum())
    foreground = len(sampled) - background
    assert 0 < foreground < 25 and 0 < background <= 48
    assert sampled.seen.tolist() == pytest.approx([background / 48 / (foreground / 25)] * len(sampled))


SCORE = 0.75
LOGITS = torch.tensor([0.75, 0.25]).log()


@pytest.mark.parametrize(
    "name, touching, apart", [("OBSS", 0.953, 0.25), ("MOBHS", 2.0, 1.0), ("HIGH_SCORES", 1.0, 1 - SCORE)]
)
def test_soft_treatments_sample_as_ever_and_weigh_the_loss(
    heads_of, sample_proposals, make_targets, name, touching, apart
):
    boxes = [TOUCHING, *APART]
    heads, labels, sampled = sampled_by(name, heads_of, sample_proposals, make_targets([LESION]), boxes)
    expected = {LESION: 1.0, tuple(TOUCHING): touching, tuple(APART[0]): apart, tuple(APART[1]): apart}
    found = list(map(tuple, sampled.proposal_boxes.tensor.tolist()))
    assert set(found) == set(expected)
    each = torch.nn.functional.cross_entropy(LOGITS.expand(4, 2), sampled.gt_classes, reduction="none")
    weight = torch.tensor([expected[box] for box in found])
    loss = heads._weighted_classification_loss(LOGITS.expand(4, 2), [sampled], labels)
    assert loss.item() == pytest.approx((each * weight).sum().item() / 4, rel=2e-3)


def test_what_is_known_to_be_no_lesion_weighs_1(heads_of, sample_proposals, make_targets):
    target = make_targets([LESION, APART[0]], [BoxStatus.LESION, BoxStatus.HARD_NEGATIVE])
    heads, labels, sampled = sampled_by("HIGH_SCORES", heads_of, sample_proposals, target, APART)
    each = torch.nn.functional.cross_entropy(LOGITS.expand(3, 2), sampled.gt_classes, reduction="none")
    weight = torch.tensor([{LESION[0]: 1, APART[0][0]: 1, APART[1][0]: 0.25}[x] for x in
                           sampled.proposal_boxes.tensor[:, 0].tolist()])  # fmt: skip
    loss = heads._weighted_classification_loss(LOGITS.expand(3, 2), [sampled], labels)
    assert loss.item() == pytest.approx((each * weight).sum().item() / 3)


def test_the_risk_of_positive_unlabelled_learning_by_hand():
    """Two lesions, one with half a weight, three others; a quarter of the lesions is labelled."""
    is_lesion, weight = torch.tensor([True, True, False, False, False]), torch.tensor([1, 0.5, 1, 1, 1])
    as_lesion, as_background = torch.tensor([0.2, 0.4, 9, 9, 9]), torch.tensor([2.0, 1.0, 3.0, 5.0, 4.0])
    risk = PartialLabels(labeled_share=0.25).loss
    lost = 0.2 + 0.2 + 0.25 * 12 - 0.75 * (2 + 0.5)
    assert risk(as_lesion, as_background, is_lesion, is_lesion, weight).item() == pytest.approx(lost)
    few = risk(as_lesion, as_background, is_lesion, is_lesion, weight, seen=0.5).item()
    assert few == pytest.approx(lost + 0.75 * 2.5 / 2)
    negative = torch.tensor([True, True, True, False, False])  # the first of the others is known to be no lesion
    assert risk(as_lesion, as_background, is_lesion, negative, weight).item() == pytest.approx(lost + 0.75 * 3)
    as_background = as_background * 0 + is_lesion
    assert risk(as_lesion, as_background, is_lesion, is_lesion, weight).item() == pytest.approx(0.4)  # not below 0


@pytest.mark.parametrize(("elsewhere", "counts"), [(-9.0, False), (9.0, True)])
def test_the_risk_is_never_negative_over_all_ranks_together(monkeypatch, elsewhere, counts):
    """Each rank has a part of it, and all leave it out or none does."""
    monkeypatch.setattr(missing_labels, "sum_over_ranks", lambda own: own.detach() + elsewhere)
    is_lesion, weight = torch.tensor([True, False]), torch.ones(2)
    for background in (0.5, 12.0):  # below 0 on this rank, and above
        as_background = torch.tensor([2.0, background], requires_grad=True)
        risk = PartialLabels(labeled_share=0.25).loss(torch.zeros(2), as_background, is_lesion, is_lesion, weight)
        assert risk.item() == pytest.approx((0.25 * background - 0.75 * 2) * counts)


losses = st.lists(st.floats(0, 10), min_size=6, max_size=6).map(torch.tensor)


flags = st.lists(st.booleans(), min_size=6, max_size=6).map(torch.tensor)


@given(losses, losses, flags, flags)
def test_the_risk_lies_between_what_is_known_and_the_usual_loss(as_lesion, as_background, is_lesion, negative):
    each, known = as_lesion.where(is_lesion, as_background), is_lesion | negative
    whole, risk = (
        PartialLabels(labeled_share=share).loss(as_lesion, as_background, is_lesion, known, torch.ones(6)).item()
        for share in (1.0, 0.25)
    )
    assert whole == pytest.approx(each.sum().item(), rel=1e-5, abs=1e-5)
    assert each[known].sum().item() - 1e-4 <= risk <= whole + 1e-4


def first_losses(cfg, make_batch, expert, *opts):
    """A step's losses with overrides, from the same weights."""
    cfg.merge_from_list(list(opts))
    torch.manual_seed(0)
    model, batch = build_model(cfg), make_batch(expert)
    with EventStorage():
        return {name: loss.item() for name, loss in model(batch).items()}


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.AFP.MISSING_LABELS", "HIGH_SCORES", "MODEL.ROI_HEADS.MISSING_LABELS", "HIGH_SCORES"),
        ("MODEL.LENS.LABELED_SHARE", 0.25),
    ],
)
def test_only_partially_labelled_datasets_are_treated(small_cfg, make_batch, opts):
    for expert in ("luna", "deeplesion"):
        plain = first_losses(small_cfg.clone(), make_batch, expert)
        treated = first_losses(small_cfg.clone(), make_batch, expert, *opts)
        same = {name for name in plain if plain[name] == treated[name]}
        partial = {"loss_afp_center", "loss_cls"} if expert == "deeplesion" else set()
        assert set(plain) - same == partial
        assert all(treated[name] < plain[name] for name in partial)


@pytest.mark.parametrize("treatment", list(dict(MISSING_LABELS)))
def test_a_step_with_each_treatment_even_without_lesions(small_cfg, make_batch, make_targets, treatment):
    small_cfg.MODEL.ROI_HEADS.MISSING_LABELS = treatment
    model = build_model(small_cfg)
    batch = make_batch("deeplesion")
    for target in (batch[0]["instances"], make_targets([])):
        with EventStorage():
            losses = model([{**x, "instances": target} for x in batch])
        assert all(torch.isfinite(value) for value in losses.values())
        sum(losses.values()).backward()
