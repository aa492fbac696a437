"""FCOS as a proposal generator of LENS."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import EventStorage

from lens_d2.structures.status import BoxStatus


def build(cfg, name):
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = name
    torch.manual_seed(0)
    return build_proposal_generator(cfg, {"p2": ShapeSpec(channels=16, stride=4)})


def test_boxes_are_as_exact_in_bfloat16(small_cfg):
    generator = build(small_cfg, "FCOS").eval()
    images = ImageList(torch.zeros(1, 9, 64, 512), [(64, 512)])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (proposal,), _ = generator(images, {"p2": torch.randn(1, 16, 16, 128)})
    boxes = proposal.proposal_boxes.tensor
    assert boxes.dtype == torch.float32 and (boxes != boxes.bfloat16().float()).any()


def test_losses_are_divided_by_the_positives_of_all_ranks(small_cfg, make_targets, monkeypatch):
    """Those of the other rank, 18 here, count as well, also where this rank has none."""
    generator, counts = build(small_cfg, "FCOS"), []
    (points,) = generator.anchor_generator([torch.zeros(1, 16, 16, 20)])
    maps = torch.zeros(1, 320, 1), torch.ones(1, 320, 4), torch.zeros(1, 320, 1)

    def losses_of(*boxes: tuple) -> dict[str, float]:
        with EventStorage():
            losses = generator.losses_of_known(points, *maps, [make_targets(boxes)])
        return {name: loss.item() for name, loss in losses.items()}

    given = [(), ((20, 16, 44, 40),)]
    alone = [losses_of(*boxes) for boxes in given]
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr(
        "torch.distributed.all_reduce", lambda total: counts.append(total.item()) or total.add_(18)
    )
    shared = [losses_of(*boxes) for boxes in given]
    assert counts[0] == 0 < counts[1]
    for before, after, count in zip(alone, shared, counts, strict=True):
        expected = {name: loss * max(count, 1) / ((count + 18) / 2) for name, loss in before.items()}
        assert after == pytest.approx(expected)


def test_fcos_leaves_uncertain_pixels_out_of_the_loss(small_cfg, make_targets):
    generator = build(small_cfg, "FCOS")
    (points,) = generator.anchor_generator([torch.zeros(1, 16, 16, 20)])
    logits = torch.zeros(1, 320, 1, requires_grad=True)
    gt: Instances = make_targets([(20, 16, 44, 40), (48, 0, 80, 64)], [BoxStatus.LESION, BoxStatus.UNCERTAIN])
    with EventStorage():
        losses = generator.losses_of_known(points, logits, torch.ones(1, 320, 4), torch.zeros(1, 320, 1), [gt])
    losses["loss_fcos_cls"].backward()
    gradient = logits.grad.view(16, 20)
    assert (gradient[:, 12:] == 0).all() and (gradient[:, :11] != 0).all()
    centers = points.get_centers().view(16, 20, 2)
    near = (centers - torch.tensor([32.0, 28.0])).abs().amax(dim=2) < 1.5 * 4
    assert torch.equal(gradient < 0, near)
    small_cfg.MODEL.ROI_HEADS.IGNORE_IOU = 0.3
    assert build(small_cfg, "FCOS").ignore_iou == 0.3
