"""Selection of boxes of many images and experts at once: inside the image, and after NMS.

Asking a GPU how many boxes are left stalls it until it has caught up. So the functions here ask once for all
images and experts.

Shape shorthand in this file:

    N: number of images
    K: boxes of an image, of which some are no proposals
    G: number of groups
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

NOT_A_BOX = -torch.inf  # score or logit


def make_proposals(
    boxes: Tensor, logits: Tensor, image_sizes: Sequence[tuple[int, int]], chosen: Tensor | None = None
) -> list[Instances]:
    """Proposals of every image from its boxes, clipped to it, as many as there are boxes.

    An empty box gets the logit ``NOT_A_BOX`` and is left out when NMS filters the proposals; until then, a GPU
    need not be asked for their number. A box that is not finite becomes NaN, for the detector to interpret.

    Args:
        boxes: (N, K, 4) XYXY_ABS.
        logits: (N, K).
        image_sizes: height and width of each image.
        chosen: (N, K) bool, which boxes may be proposals; None: all.

    Returns:
        N Instances with ``proposal_boxes`` and ``objectness_logits``, of length K.
    """
    finite = boxes.isfinite().all(dim=2, keepdim=True)
    clipped = torch.stack([clip_boxes_to_image(own, size) for own, size in zip(boxes, image_sizes, strict=True)])
    clipped = clipped.where(finite, torch.nan)
    keep = ~(clipped[..., :2] >= clipped[..., 2:]).any(dim=2)
    if chosen is not None:
        keep &= chosen
    logits = logits.where(keep, NOT_A_BOX)
    return [
        Instances(size, proposal_boxes=Boxes(box), objectness_logits=logit)
        for size, box, logit in zip(image_sizes, clipped, logits, strict=True)
    ]


def without_gaps(proposals: Instances) -> Instances:
    """The proposals of an image without those that are no boxes; a GPU is asked for their number."""
    if not proposals.has("objectness_logits"):
        return proposals
    return proposals[proposals.objectness_logits > NOT_A_BOX]


class BoxSet(NamedTuple):
    """Boxes of one image that may become detections.

    Attributes:
        image_size: height and width.
        boxes: (n, 4) XYXY_ABS.
        scores: (n,)
        fields: further fields of the detections, of length n.
    """

    image_size: tuple[int, int]
    boxes: Tensor
    scores: Tensor
    fields: Mapping[str, Tensor] = MappingProxyType({})


def make_detections(sets: Sequence[BoxSet], score_thresh: float, iou: float, topk: int) -> list[Instances]:
    """Detections of each set of boxes after score floor, NMS and limit.

    Args:
        sets: of any images; several may be of the same one.
        score_thresh: a box is a detection if it is finite and its score above this.
        iou: of the NMS.
        topk: number of boxes of a set that are kept at most.

    Returns:
        Instances of each set with ``pred_boxes``, clipped to the image, ``scores``, ``pred_classes`` (0) and the
        further fields, by decreasing score.
    """
    boxes = [clip_boxes_to_image(each.boxes, each.image_size) for each in sets]
    scores = [
        each.scores.where((each.scores > score_thresh) & each.boxes.isfinite().all(dim=1), NOT_A_BOX)
        for each in sets
    ]
    return [
        Instances(
            each.image_size,
            pred_boxes=Boxes(own[keep]),
            scores=each.scores[keep],
            pred_classes=torch.zeros_like(keep),
            **{name: values[keep] for name, values in each.fields.items()},
        )
        for each, own, keep in zip(sets, boxes, nms_of_groups(boxes, scores, iou, topk), strict=True)
    ]


def nms_of_groups(boxes: Sequence[Tensor], scores: Sequence[Tensor], iou: float, topk: int) -> list[Tensor]:
    """Filter overlapping boxes by NMS within each of G groups, such as images or an image's experts.

    Args:
        boxes: (n, 4) XYXY_ABS of each group.
        scores: (n,) of each group, ``NOT_A_BOX`` where a box does not count, whatever its coordinates are.
        iou: above which a box of a lower score is left out.
        topk: number of boxes of a group that are kept at most.

    Returns:
        (k,) numbers of the kept boxes of each group, by decreasing score.
    """
    if not boxes:
        return []
    run = _together if is_asynchronous(boxes[0].device) else _one_by_one
    return run(boxes, scores, iou, topk)


def is_asynchronous(device: torch.device) -> bool:
    """Whether the device runs asynchronously, so that reading a result stalls the program."""
    return device.type != "cpu"


def _one_by_one(boxes: Sequence[Tensor], scores: Sequence[Tensor], iou: float, topk: int) -> list[Tensor]:
    """As :func:`nms_of_groups`; the least work."""
    kept = []
    for box, score in zip(boxes, scores, strict=True):
        counted = (score > NOT_A_BOX).nonzero()[:, 0]
        kept.append(counted[nms(box[counted], score[counted], iou)[:topk]])
    return kept


def _together(boxes: Sequence[Tensor], scores: Sequence[Tensor], iou: float, topk: int) -> list[Tensor]:
    """As :func:`nms_of_groups`, by one NMS of boxes that are moved apart, a group beside the other.

    In double precision the moved boxes keep their sides and overlaps, wherever a group lies in the batch.
    """
    lengths = [len(box) for box in boxes]
    box, score = torch.cat(list(boxes)).double(), torch.cat(list(scores)).double()
    if not len(box):
        return [score.long() for _ in lengths]
    group = torch.tensor([g for g, length in enumerate(lengths) for _ in range(length)], device=box.device)
    counted = score > NOT_A_BOX
    box = torch.where(counted[:, None], box, 0.0)
    side = (box.amax() - box.amin()).ceil() + 1
    kept = nms(box + (group * side)[:, None], score, iou)
    kept = kept[group[kept].argsort(stable=True)]
    groups = torch.arange(len(lengths) + 1, device=box.device)
    first = torch.searchsorted(group[kept], groups)
    # what does not count is last in its group
    number = torch.zeros_like(groups).index_add_(0, group[kept], counted[kept].long())
    before, kept_of_group = 0, []
    for start, count, length in zip(*torch.stack([first, number]).tolist(), [*lengths, 0], strict=True):
        kept_of_group.append(kept[start : start + min(count, topk)] - before)
        before += length
    return kept_of_group[:-1]
