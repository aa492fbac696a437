"""The gate: whom it trusts, what it learns from, and that nothing else changes."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from helpers.blocks import blocks_cfg, register_blocks, write_blocks

from lens_d2.data.mapper import SliceMapper
from lens_d2.inference.volume import VolumeInference
from lens_d2.io.checkpoint import LENSCheckpointer
from lens_d2.io.errors import DataError
from lens_d2.modeling.gating import Gate
from lens_d2.structures.detections import FUSED
from lens_d2.structures.status import BoxStatus


def gated(cfg):
    cfg = cfg.clone()
    cfg.MODEL.ROI_HEADS.NAME = "GatedROIHeads"
    torch.manual_seed(0)
    return build_model(cfg)


def plain(cfg):
    torch.manual_seed(0)
    return build_model(cfg)


def test_it_begins_with_the_mean_of_the_log_odds():
    scores = torch.tensor([[0.2, 0.8], [0.5, 0.9], [0.0, 1.0], [0.1, 0.1]])
    weights, log_odds = Gate(3, ("a", "b"), 8)(torch.randn(4, 3), scores)
    assert torch.allclose(weights, torch.full((4, 2), 0.5))
    assert log_odds.tolist() == pytest.approx([0.0, math.log(9) / 2, 0.0, math.log(1 / 9)], abs=1e-3)


def test_what_it_has_learnt_of_an_expert_goes_by_name():
    """Into experts in another order, and beside one more."""
    torch.manual_seed(0)
    gate, other, larger = (Gate(3, names, 8) for names in (("a", "b"), ("b", "a"), ("c", "a", "b")))
    for layer in (gate.offset, *gate.trust.values()):
        torch.nn.init.normal_(layer.weight)
    other.load_state_dict(gate.state_dict())
    features, scores = torch.randn(4, 3), torch.rand(4, 2)
    weights, log_odds = gate(features, scores)
    theirs, same = other(features, scores[:, [1, 0]])
    torch.testing.assert_close(theirs[:, [1, 0]], weights)
    torch.testing.assert_close(same, log_odds)
    absent = larger.load_state_dict(gate.state_dict(), strict=False).missing_keys
    assert absent == ["hidden_of.c", "trust.c.weight", "trust.c.bias"]


def test_it_learns_whom_to_trust_by_the_features():
    """One expert knows lesions in the lung, the other those elsewhere; the feature says where a proposal lies."""
    generator = torch.Generator().manual_seed(0)
    lung = torch.rand(400, generator=generator) < 0.5
    is_lesion = torch.rand(400, generator=generator) < 0.5
    noise = torch.rand(400, 2, generator=generator)
    right = torch.where(is_lesion, 0.7, 0.3)
    scores = torch.where(torch.stack([lung, ~lung], dim=1), right[:, None], noise).clamp(0.02, 0.98)
    features = lung.float()[:, None]
    torch.manual_seed(0)
    gate = Gate(1, ("lung", "body"), 16)
    optimizer = torch.optim.Adam(gate.parameters(), 0.05)
    for _ in range(80):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(gate(features, scores)[1], is_lesion.float())
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    weights, log_odds = gate(features, scores)
    assert ((log_odds > 0) == is_lesion).float().mean() > 0.95
    assert weights[lung, 0].mean() > 0.6 and weights[~lung, 1].mean() > 0.6


def test_the_other_weights_learn_as_without_it(small_cfg, make_batch):
    with_gate, without = gated(small_cfg), plain(small_cfg)
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_gate.state_dict()[name])
    found = {}
    for key, model in (("with", with_gate), ("without", without)):
        torch.manual_seed(1)  # samples of these batches have no seeds
        with EventStorage():
            found[key] = model(make_batch("luna"))
        sum(found[key].values()).backward()
    assert set(found["with"]) - set(found["without"]) == {"loss_gate"}
    gradients = {name: p.grad for name, p in with_gate.named_parameters()}
    for name, parameter in without.named_parameters():
        same = gradients.pop(name)
        assert (same is None) == (parameter.grad is None) and (same is None or torch.equal(same, parameter.grad))
    assert all(name.startswith("roi_heads.gate.") for name in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients.values())


def test_background_counts_less_where_another_expert_sees_a_lesion(small_cfg, make_targets, sample_proposals):
    heads = gated(small_cfg).roi_heads
    sampled = sample_proposals(heads, make_targets([]), [[2.0, 2, 12, 12], [60, 44, 76, 60]])
    features = torch.randn(len(sampled), heads.box_head.output_shape.channels)
    for predictor in heads.box_predictors.values():
        torch.nn.init.zeros_(predictor.cls_score.weight), torch.nn.init.zeros_(predictor.cls_score.bias)
    expert = heads.experts[0]
    loss = heads.further_losses({}, [sampled], features, expert)["loss_gate"].item()
    heads.box_predictors[heads.experts[1]].cls_score.bias.data[0] = 20.0
    heads.gate.offset.bias.data[0] = -torch.tensor(1 - 1e-4).logit() / len(heads.experts)  # the same log odds
    assert loss == pytest.approx(0.5 * torch.tensor(2.0).log().item(), rel=1e-4)
    assert heads.further_losses({}, [sampled], features, expert)["loss_gate"].item() == pytest.approx(0, abs=1e-5)


def test_a_hard_negative_counts_in_full_whatever_other_experts_say(small_cfg, make_targets, sample_proposals):
    heads = gated(small_cfg).roi_heads
    box = [2.0, 2, 12, 12]
    sampled = sample_proposals(heads, make_targets([box], status=[BoxStatus.HARD_NEGATIVE]), [box])
    features = torch.zeros(len(sampled), heads.box_head.output_shape.channels)
    for name, predictor in heads.box_predictors.items():
        torch.nn.init.zeros_(predictor.cls_score.bias)
        predictor.cls_score.bias.data[0] = 20.0 if name == "lits" else 0.0
    loss = heads.further_losses({}, [sampled], features, "luna")["loss_gate"].item()
    assert loss == pytest.approx(math.log1p((1 / 1e-4 - 1) ** 0.25), rel=1e-3)


def test_weights_without_a_gate_are_a_beginning_but_not_a_gated_detector(small_cfg, make_batch, tmp_path):
    finished = plain(small_cfg).eval()
    torch.save({"model": finished.state_dict()}, tmp_path / "old.pth")
    torch.manual_seed(7)
    small_cfg.MODEL.ROI_HEADS.NAME = "GatedROIHeads"
    model = build_model(small_cfg).eval()
    LENSCheckpointer(model).load(str(tmp_path / "old.pth"))
    assert not model.roi_heads.gate.offset.weight.any()
    with torch.no_grad():
        ours, usual = model(make_batch("luna"))[0]["experts"], finished(make_batch("luna"))[0]["experts"]
    assert all(torch.equal(ours[name].scores, usual[name].scores) for name in usual if name != FUSED)
    with pytest.raises(DataError, match="no roi_heads.gate"):
        LENSCheckpointer(model, whole=True).load(str(tmp_path / "old.pth"))
    torch.save({"model": model.state_dict()}, tmp_path / "gated.pth")
    LENSCheckpointer(finished, whole=True).load(str(tmp_path / "gated.pth"))  # fused by NMS


def test_its_detections_are_the_fused_ones_and_experts_stay(small_cfg, make_batch):
    with_gate, without = gated(small_cfg).eval(), plain(small_cfg).eval()
    with_gate.roi_heads.gate.offset.bias.data[0] = 3.0
    batch = make_batch("luna")
    with torch.no_grad():
        ours, usual = with_gate(batch)[0]["experts"], without(batch)[0]["experts"]
    assert list(ours) == list(usual)
    for name in usual:
        equal = ours[name].scores.tolist() == usual[name].scores.tolist()
        assert equal == (name != FUSED)
    assert (ours[FUSED].scores > 0.5).any() and ours[FUSED].expert_scores.shape[1] == len(ours) - 1


def test_a_volume_has_the_detections_of_its_slices(tmp_path):
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path, "MODEL.ROI_HEADS.NAME", "GatedROIHeads", "INPUT.CACHE_DIR", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    torch.nn.init.normal_(model.roi_heads.gate.offset.weight)
    inference = VolumeInference(cfg, model)
    (tmp_path / "scan").mkdir()
    volume = inference.cache.open(write_blocks(tmp_path / "scan", "luna")[0])
    slices = inference.detect_slices(volume)[FUSED]
    interval = cfg.INPUT.SLICE_INTERVAL / volume.geometry.slice_interval
    mapper = SliceMapper(cfg, is_train=False)
    for level in (0, len(slices) // 2):
        image = torch.from_numpy(mapper.read(volume, level * interval))
        with torch.no_grad():
            alone = model([{"image": image}])[0]["experts"][FUSED]
        assert slices[level].scores.tolist() == pytest.approx(alone.scores.tolist(), abs=1e-4)


def test_it_needs_shared_features(small_cfg):
    small_cfg.MODEL.DENSENET.ADAPTERS = "residual"
    with pytest.raises(DataError, match="GatedROIHeads needs features that all experts share"):
        gated(small_cfg)
