"""MULAN's heads: detection, masks from RECIST marks, tags (Yan et al., MICCAI 2019, arXiv:1908.04373).

LENS's baseline (Table I). The backbone and the detection head are those that LENS took over. Left out are the
score refinement layer and LesaNet's relational hard example mining of tags.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from detectron2.modeling.roi_heads.mask_head import build_mask_head
from detectron2.structures import Boxes, Instances, PolygonMasks
from torch import Tensor, nn

from .adapters import ExpertFeatures, features_of
from .roi_heads import LENSROIHeads, build_pooler
from .supervision import global_normalizer

ARC = 8  # points of a quarter-ellipse


def recist_outline(ends: np.ndarray) -> np.ndarray:
    """Outline of a lesion by its RECIST mark: four quarter-ellipses around the crossing of the two axes.

    Each joins neighbouring ends, with the parts of the axes up to these as its half-axes.

    Args:
        ends: (4, 2) x, y of the long axis' two ends and the short axis' two.

    Returns:
        (4 ARC, 2) x, y of its points, in order.
    """
    first, last, *short = np.asarray(ends, dtype=np.float64)
    along, across = last - first, short[1] - short[0]
    area = np.linalg.det([along, across])
    center = np.mean(ends, axis=0)  # of a mark that is no cross
    if abs(area) > 1e-6 * np.linalg.norm(along) * np.linalg.norm(across):
        part = np.linalg.det([short[0] - first, across]) / area
        center = first + np.clip(part, 0, 1) * along
    angle = np.linspace(0, np.pi / 2, ARC, endpoint=False)[:, None]
    corners = np.array([first, short[0], last, short[1], first]) - center
    arcs = [np.cos(angle) * a + np.sin(angle) * b for a, b in zip(corners, corners[1:], strict=False)]
    return center + np.concatenate(arcs)


@ROI_HEADS_REGISTRY.register()
class MULANROIHeads(LENSROIHeads):
    """LENS's detection head, a mask head and a tag head, each with an ROIAlign and layers of its own.

    The mask head learns from proposals of lesions that have a RECIST mark on the slice, the tag head from those of
    lesions that have labels. Targets are as :class:`~lens_d2.data.mapper.SliceMapper` gives them.
    """

    @configurable
    def __init__(
        self,
        *,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        tag_head: nn.Module | None = None,
        mask_loss_weight: float = 1.0,
        tag_loss_weight: float = 1.0,
        **kwargs,
    ):
        """
        Args:
            mask_pooler: as in Detectron2's StandardROIHeads.
            mask_head: as there; None: no masks.
            tag_head: from the detection head's pooled regions to (n, C) logits; None: no tags.
            mask_loss_weight: of "loss_mask".
            tag_loss_weight: of "loss_tag".
            kwargs: as :class:`LENSROIHeads`.
        """
        super().__init__(**kwargs)
        self.mask_pooler, self.mask_head, self.tag_head = mask_pooler, mask_head, tag_head
        self.mask_loss_weight, self.tag_loss_weight = mask_loss_weight, tag_loss_weight

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        """Read ``MODEL.MULAN`` and ``MODEL.ROI_MASK_HEAD``, beside what LENS's head reads."""
        ret, keys, mask = super().from_config(cfg, input_shape), cfg.MODEL.MULAN, cfg.MODEL.ROI_MASK_HEAD
        ret["mask_loss_weight"], ret["tag_loss_weight"] = keys.MASK_LOSS_WEIGHT, keys.TAG_LOSS_WEIGHT
        in_features = ret["box_in_features"]
        channels = input_shape[in_features[0]].channels
        if keys.MASK_ON:
            ret["mask_pooler"] = build_pooler(mask, [input_shape[f] for f in in_features])
            side = mask.POOLER_RESOLUTION
            ret["mask_head"] = build_mask_head(cfg, ShapeSpec(channels=channels, height=side, width=side))
        if keys.TAG_ON:
            side = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
            shape = ShapeSpec(channels=channels, height=side, width=side)
            layers = FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[keys.TAG_FC_DIM] * 2)
            ret["tag_head"] = nn.Sequential(layers, nn.Linear(keys.TAG_FC_DIM, keys.NUM_TAGS))
        return ret

    def further_losses(
        self, features: dict[str, Tensor], proposals: list[Instances], box_features: Tensor, expert: str
    ) -> dict[str, Tensor]:
        """Losses of the heads that are on, "loss_mask" and "loss_tag".

        Args:
            features: feature maps of N images by name.
            proposals: N, sampled, with ``gt_recist`` for masks, ``gt_tags`` and ``gt_tag_weights`` for tags.
            box_features: not used.
            expert: not used.
        """
        lesions, losses = [x[x.gt_classes == 0] for x in proposals], {}
        if self.mask_head is not None:
            losses["loss_mask"] = self._mask_loss(features, lesions) * self.mask_loss_weight
        if self.tag_head is not None:
            losses["loss_tag"] = self._tag_loss(features, lesions) * self.tag_loss_weight
        return losses

    def _mask_loss(self, features: dict[str, Tensor], lesions: list[Instances]) -> Tensor:
        """Mean cross-entropy of the pixels of proposals of marked lesions."""
        marked = [x[~x.gt_recist.isnan().flatten(1).any(dim=1)] if len(x) else x for x in lesions]
        for own in marked:
            ends = own.gt_recist.cpu().numpy() if len(own) else ()
            own.gt_masks = PolygonMasks([[recist_outline(cross).ravel()] for cross in ends])
        loss = self.mask_head(self._pool_masks(features, [x.proposal_boxes for x in marked]), marked)["loss_mask"]
        count = sum(map(len, marked))
        return loss * (count / global_normalizer(count, loss.device))

    def _tag_loss(self, features: dict[str, Tensor], lesions: list[Instances]) -> Tensor:
        """Cross-entropy of labels by their weights, divided by the number of those that have one."""
        logits = self._tag_logits(features, [x.proposal_boxes for x in lesions])
        tags, weights = (
            torch.cat([logits.new_zeros(0, logits.shape[1]), *(x.get(name) for x in lesions if len(x))])
            for name in ("gt_tags", "gt_tag_weights")
        )
        loss = F.binary_cross_entropy_with_logits(logits.float(), tags.float(), weights.float(), reduction="sum")
        return loss / global_normalizer((weights > 0).sum().item(), logits.device)

    def _pool_masks(self, features: dict[str, Tensor], boxes: list[Boxes]) -> Tensor:
        return self.mask_pooler(self._maps(features), boxes)

    def _tag_logits(self, features: dict[str, Tensor], boxes: list[Boxes]) -> Tensor:
        return self.tag_head(self.box_pooler(self._maps(features), boxes))

    def forward_with_given_boxes(
        self, features: dict[str, Tensor] | ExpertFeatures, instances: list[Instances]
    ) -> list[Instances]:
        """Add masks and tags to detections.

        Args:
            features: feature maps of N images by name.
            instances: N, with ``pred_boxes`` and ``pred_classes``.

        Returns:
            The same, with ``pred_masks`` (n, 1, 28, 28), probabilities in the box, if there is a mask head, and
            ``tag_scores`` (n, C), if there is a tag head.
        """
        features = features_of(features, self.experts[0])
        boxes = [x.pred_boxes for x in instances]
        if self.mask_head is not None:
            self.mask_head(self._pool_masks(features, boxes), instances)
        if self.tag_head is not None:
            scores = self._tag_logits(features, boxes).sigmoid().split([len(x) for x in instances])
            for own, of_image in zip(instances, scores, strict=True):
                own.tag_scores = of_image
        return instances
