"""Detections without a second stage: a proposal generator's boxes are the output (LENS, Table II)."""

from __future__ import annotations

import torch
from detectron2.structures import Instances, pairwise_iou
from torch import Tensor
from torchvision.ops import nms


def detections_of(
    proposals: dict[str, Instances], score_thresh: float, nms_thresh: float, topk: int
) -> dict[str, Instances]:
    """The experts' proposals in one image as their detections, in the form that the detection head has them.

    Args:
        proposals: of every expert, with ``proposal_boxes`` and ``objectness_logits``.
        score_thresh, nms_thresh, topk: floor of the score, IoU of the NMS, at most so many boxes of an expert.

    Returns:
        {expert: Instances} with ``pred_boxes``, ``scores``, ``pred_classes`` (0) and ``expert_scores`` (n,
        experts), an expert's highest score among its boxes with at least the IoU ``nms_thresh`` with this one.
    """
    kept = {name: _filter(own, score_thresh, nms_thresh, topk) for name, own in proposals.items()}
    for name, own in kept.items():
        own.expert_scores = torch.stack(
            [own.scores if other == name else _score_there(own, kept[other], nms_thresh) for other in kept], dim=1
        )
    return kept


def _filter(proposals: Instances, score_thresh: float, nms_thresh: float, topk: int) -> Instances:
    boxes, scores = proposals.proposal_boxes, proposals.objectness_logits.sigmoid()
    sure = (scores > score_thresh).nonzero()[:, 0]
    keep = sure[nms(boxes.tensor[sure], scores[sure], nms_thresh)[:topk]]
    return Instances(
        proposals.image_size,
        pred_boxes=boxes[keep],
        scores=scores[keep],
        pred_classes=torch.zeros_like(keep),
    )


def _score_there(boxes: Instances, others: Instances, iou: float) -> Tensor:
    """(len(boxes),) the highest score of the other boxes that overlap each box."""
    if not len(others):
        return torch.zeros_like(boxes.scores)
    overlapping = pairwise_iou(boxes.pred_boxes, others.pred_boxes) >= iou
    return (overlapping * others.scores).amax(dim=1)
