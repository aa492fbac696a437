"""Detectron2's RPN as a proposal generator of LENS (Table II), with MULAN's anchors."""

from __future__ import annotations

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from torch import Tensor

from ..structures.status import BoxStatus
from .backbone import shape_of
from .supervision import of_status, overlaps_any


@PROPOSAL_GENERATOR_REGISTRY.register()
class LENSRPN(RPN):
    """One expert's RPN: Detectron2's, with its keys (``MODEL.RPN``, ``MODEL.ANCHOR_GENERATOR``).

    An anchor on an uncertain region is not sampled, unless it matches a lesion. Hard negatives are background
    (a detection head with a class for them has LENS pass them as lesions).
    """

    @configurable
    def __init__(self, *, ignore_iou: float, **kwargs):
        """
        Args:
            ignore_iou: an anchor that overlaps an uncertain region with this IoU, or lies in it, is on it.
            kwargs: as Detectron2's RPN.
        """
        super().__init__(**kwargs)
        self.ignore_iou = ignore_iou

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        """Read ``MODEL.RPN``, as Detectron2's, and ``MODEL.ROI_HEADS.IGNORE_IOU``."""
        for name in cfg.MODEL.RPN.IN_FEATURES:
            shape_of(input_shape, name, "MODEL.RPN.IN_FEATURES")
        return {**super().from_config(cfg, input_shape), "ignore_iou": cfg.MODEL.ROI_HEADS.IGNORE_IOU}

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """As Detectron2's, but without ``gt_instances`` there are no losses, also in training."""
        return super().forward(images, features, gt_instances or [])

    def losses(self, anchors, pred_objectness_logits, gt_labels, *args) -> dict[str, Tensor]:
        """As Detectron2's, nothing without ``gt_labels``."""
        return super().losses(anchors, pred_objectness_logits, gt_labels, *args) if gt_labels else {}

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As Detectron2's: per image (R,) labels 1, 0 or -1 (no loss), and (R, 4) matched boxes of lesions."""
        anchors = Boxes.cat(anchors)
        labels, matched = [], []
        bound = self.anchor_boundary_thresh
        for gt in gt_instances:
            lesions, uncertain = (
                of_status(gt, status).gt_boxes for status in (BoxStatus.LESION, BoxStatus.UNCERTAIN)
            )
            index, label = self.anchor_matcher(pairwise_iou(lesions, anchors))
            label[overlaps_any(anchors, uncertain, self.ignore_iou) & (label != 1)] = -1
            if bound >= 0:
                label[~anchors.inside_box(gt.image_size, bound)] = -1
            labels.append(self._subsample_labels(label))
            matched.append(lesions[index].tensor if len(lesions) else torch.zeros_like(anchors.tensor))
        return labels, matched
