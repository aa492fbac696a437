"""Detections of the same slices at several scales become one set: test-time augmentation, as Detectron2's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from torch import Tensor

from ..modeling.meta_arch import best_overlapping
from ..modeling.selection import nms_of_groups
from ..structures.scores import CERTAIN


def fuse_scales(scales: Sequence[Sequence[Instances]], iou: float, topk: int, floor: float) -> list[Instances]:
    """Fuse what one expert has found on the same slices at several scales.

    Among overlapping boxes, NMS keeps the one with the best score. For its new score, each scale contributes the
    best score of the boxes that overlap it there, and the log odds of these are averaged; its further fields stay
    those of its own scale. Neither paper does this.

    Args:
        scales: for every scale, Instances of each slice with ``pred_boxes``, ``scores`` and further fields.
        iou: above which boxes overlap.
        topk: number of boxes of a slice that are kept at most.
        floor: score assumed for a scale without an overlapping box, the detector's score floor.

    Returns:
        Instances of each slice in the pixels of the first scale, by decreasing score.
    """
    slices = [[_resized(each, own[0].image_size) for each in own] for own in zip(*scales, strict=True)]
    pooled = [Instances.cat(own) for own in slices]
    boxes, scores = [each.pred_boxes.tensor for each in pooled], [each.scores for each in pooled]
    kept = nms_of_groups(boxes, scores, iou, topk)
    fused = []
    for own, everything, index in zip(slices, pooled, kept, strict=True):
        best = everything[index]
        best.scores = _mean_log_odds([best_overlapping(best, each, iou) for each in own], floor)
        fused.append(best[best.scores.argsort(descending=True, stable=True)])
    return fused


def _resized(found: Instances, image_size: tuple[int, int]) -> Instances:
    """The boxes in the pixels of an image of another size; the other fields stay."""
    boxes = found.pred_boxes.clone()
    boxes.scale(image_size[1] / found.image_size[1], image_size[0] / found.image_size[0])
    return Instances(image_size, **{**found.get_fields(), "pred_boxes": boxes})


def _mean_log_odds(scores: Sequence[Tensor], floor: float) -> Tensor:
    """(n,) probability whose log odds are the mean of those of several (n,) probabilities."""
    return (
        torch.stack([own.clamp(max(floor, CERTAIN), 1 - CERTAIN).logit() for own in scores]).mean(dim=0).sigmoid()
    )
