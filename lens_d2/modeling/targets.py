"""What the boxes of a training sample stand for. The mapper writes these values, the losses read them."""

from enum import IntEnum

import torch
from detectron2.structures import Boxes, pairwise_ioa, pairwise_iou
from torch import Tensor


class BoxStatus(IntEnum):
    """Field ``gt_status`` of a sample's ``Instances``."""

    LESION = 0  # an annotation, given or mined: to be found
    UNCERTAIN = 1  # to be left out of every loss (LENS, Section V-C)
    HARD_NEGATIVE = 2  # known not to be a lesion


# The status of a record's lesion (see lens_d2.data.records), and what training makes of it.
STATUS_OF_RECORD = {
    "annotation": BoxStatus.LESION,
    "mined": BoxStatus.LESION,
    "accepted": BoxStatus.LESION,
    "uncertain": BoxStatus.UNCERTAIN,
    "unsure": BoxStatus.UNCERTAIN,
    "hard_negative": BoxStatus.HARD_NEGATIVE,
}


def on_uncertain(boxes: Boxes, uncertain: Boxes, ignore_iou: float = 0.5) -> Tensor:
    """(len(boxes),) bool: which have an IoU of ``ignore_iou`` with an uncertain region, or lie in it that far."""
    if not len(uncertain) or not len(boxes):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    overlapping = pairwise_iou(boxes, uncertain).amax(dim=1) >= ignore_iou
    return overlapping | (pairwise_ioa(uncertain, boxes).amax(dim=0) >= ignore_iou)
