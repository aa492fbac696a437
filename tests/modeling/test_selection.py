"""Selection of boxes of many images and experts at once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_d2.modeling import selection
from lens_d2.modeling.selection import (
    NOT_A_BOX,
    BoxSet,
    make_detections,
    make_proposals,
    nms_of_groups,
)

WAYS = pytest.mark.parametrize("waits", [False, True], ids=["CPU's way", "GPU's way"])


def some_boxes(count, generator):
    corner = torch.rand(count, 2, generator=generator) * 100 - 20
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 40], dim=1)


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    iou=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    topk=st.integers(1, 15),
    seed=st.integers(0, 2**31 - 1),
)
def test_both_ways_keep_the_same_boxes(counts, iou, topk, seed):
    generator = torch.Generator().manual_seed(seed)
    boxes = [some_boxes(count, generator) for count in counts]
    scores = [torch.rand(count, generator=generator) for count in counts]
    for box, score in zip(boxes, scores, strict=True):
        score[score < 0.3] = NOT_A_BOX
        box[score == NOT_A_BOX] = torch.nan
    plain = nms_of_groups(boxes, scores, iou, topk)
    together = selection._together(boxes, scores, iou, topk)
    assert [own.tolist() for own in together] == [own.tolist() for own in plain]
    for kept, score in zip(plain, scores, strict=True):
        assert len(kept) <= topk and (score[kept] > NOT_A_BOX).all()
        assert score[kept].tolist() == sorted(score[kept].tolist(), reverse=True)


@WAYS
def test_groups_do_not_suppress_each_other(monkeypatch, waits):
    monkeypatch.setattr(selection, "is_asynchronous", lambda device: waits)
    box = torch.tensor([[10.0, 10, 30, 30], [11, 11, 31, 31]])
    kept = nms_of_groups(
        [box, box, box[:0]], [torch.tensor([0.5, 0.6]), torch.tensor([0.9, 0.1]), box[:0, 0]], 0.5, 9
    )
    assert [own.tolist() for own in kept] == [[1], [0], []]
    assert nms_of_groups([], [], 0.5, 9) == []
    assert [own.tolist() for own in nms_of_groups([box[:0]], [box[:0, 0]], 0.5, 9)] == [[]]


@WAYS
@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=["NaN", "Inf"])
def test_detections_are_finite_inside_the_image_and_above_the_floor(monkeypatch, waits, value):
    monkeypatch.setattr(selection, "is_asynchronous", lambda device: waits)
    boxes = torch.tensor([[-5.0, 2, 8, 9], [50, 50, 60, 60], [0, 0, value, 4], [20, 20, 30, 30]])
    scores = torch.tensor([0.4, 0.01, 0.9, 0.7])
    expert_scores = torch.stack([scores, scores / 2], dim=1)
    first, second = make_detections(
        [
            BoxSet((40, 32), boxes, scores, {"expert_scores": expert_scores}),
            BoxSet((40, 32), boxes[:0], scores[:0]),
        ],
        score_thresh=0.01,
        iou=0.5,
        topk=5,
    )
    assert first.pred_boxes.tensor.tolist() == [[20, 20, 30, 30], [0, 2, 8, 9]]
    assert torch.equal(first.expert_scores, expert_scores[[3, 0]]) and first.pred_classes.tolist() == [0, 0]
    assert len(second) == 0 and second.image_size == (40, 32)


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=["NaN", "Inf"])
def test_proposals_are_clipped_and_empty_ones_do_not_count(value):
    inside, outside, broken = [2.0, 2, 8, 9], [35.0, 2, 50, 9], [0, 0, value, 4]
    boxes = torch.tensor([[outside, [-3.0, -3, 4, 4], inside], [broken, inside, outside]])
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1]])
    first, second = make_proposals(boxes, logits, [(20, 30), (20, 40)])
    assert first.proposal_boxes.tensor[1:].tolist() == [[0, 0, 4, 4], inside]
    assert first.objectness_logits.tolist() == [NOT_A_BOX, 2, 1]
    assert second.proposal_boxes.tensor[1:].tolist() == [inside, [35, 2, 40, 9]]
    assert second.proposal_boxes.tensor[0].isnan().all()  # what that means is for the detector to say
    chosen = torch.tensor([[True, True, False], [False, True, True]])
    assert [own.objectness_logits.tolist() for own in make_proposals(boxes, logits, [(20, 30)] * 2, chosen)] == [
        [NOT_A_BOX, 2, NOT_A_BOX],
        [NOT_A_BOX, 2, NOT_A_BOX],
    ]
