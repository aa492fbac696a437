"""Detectron2's FCOS as a proposal generator of LENS (Table II), on one feature map.

Shape shorthand in this file:

    N: number of images in the minibatch
    R: pixels of the feature map, FCOS's anchor points
"""

from __future__ import annotations

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch import fcos
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ..structures.status import BoxStatus
from .backbone import shape_of
from .selection import make_proposals
from .supervision import global_normalizer, log_counts, of_status, overlaps_any


class _Shapes(nn.Module):
    """Stand-in for the backbone, which Detectron2's FCOS asks only for the shapes of its maps."""

    def __init__(self, shapes: dict[str, ShapeSpec]):
        super().__init__()
        self.shapes = shapes

    def output_shape(self) -> dict[str, ShapeSpec]:
        return self.shapes


@PROPOSAL_GENERATOR_REGISTRY.register()
class FCOS(fcos.FCOS):
    """One expert's FCOS: Detectron2's head, assignment and losses.

    A pixel in an uncertain region has no loss, unless it is positive. Hard negatives are background.
    """

    @configurable
    def __init__(
        self,
        *,
        in_feature: str,
        input_shape: dict[str, ShapeSpec],
        head: nn.Module,
        pre_nms_topk: tuple[int, int] = (300, 200),
        ignore_iou: float = 0.5,
        **kwargs,
    ):
        """
        Args:
            in_feature: name of the feature map.
            input_shape: of the backbone's maps.
            head: as Detectron2's FCOSHead.
            pre_nms_topk: pixels that become proposals in training and at inference.
            ignore_iou: IoU of a pixel's square with an uncertain region, or its share inside one, from which on
                the pixel is in it.
            kwargs: as Detectron2's FCOS.
        """
        super().__init__(
            backbone=_Shapes(input_shape),
            head=head,
            head_in_features=[in_feature],
            num_classes=1,
            pixel_mean=[0.0],
            pixel_std=[1.0],
            **kwargs,
        )
        self.ignore_iou = ignore_iou
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        """Read ``MODEL.FCOS`` and ``MODEL.ROI_HEADS.IGNORE_IOU``."""
        keys = cfg.MODEL.FCOS
        head = fcos.FCOSHead(
            input_shape=[shape_of(input_shape, keys.IN_FEATURE, "MODEL.FCOS.IN_FEATURE")],
            num_classes=1,
            conv_dims=list(keys.CONV_DIMS),
            norm=keys.NORM,
            prior_prob=keys.PRIOR_PROB,
        )
        return {
            "in_feature": keys.IN_FEATURE,
            "input_shape": input_shape,
            "head": head,
            "center_sampling_radius": keys.CENTER_SAMPLING_RADIUS,
            "pre_nms_topk": (keys.PRE_NMS_TOPK_TRAIN, keys.PRE_NMS_TOPK_TEST),
            "ignore_iou": cfg.MODEL.ROI_HEADS.IGNORE_IOU,
        }

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose boxes, and learn from the true ones if they are given.

        Args:
            images: of N images; only their sizes are used.
            features: feature maps by name.
            gt_instances: N, with ``gt_boxes`` and, unless all are lesions, ``gt_status`` (:class:`BoxStatus`).

        Returns:
            proposals: N Instances with ``proposal_boxes`` and ``objectness_logits``, not yet filtered by NMS.
            losses: with ``gt_instances``, "loss_fcos_cls", "loss_fcos_loc" and "loss_fcos_ctr".
        """
        maps = [features[f] for f in self.head_in_features]
        (points,) = self.anchor_generator(maps)
        outputs = self._transpose_dense_predictions(self.head(maps), [1, 4, 1])
        logits, deltas, centerness = (x[0].float() for x in outputs)
        losses = {}
        if gt_instances is not None:
            losses = self.losses_of_known(points, logits, deltas, centerness, gt_instances)
        with torch.no_grad():
            proposals = self.predict_proposals(points, logits, deltas, centerness, images.image_sizes)
        return proposals, losses

    def losses_of_known(
        self, points: Boxes, logits: Tensor, deltas: Tensor, centerness: Tensor, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Detectron2's losses of all images' pixels that are not uncertain, as if of one image.

        Args:
            points: R, the pixels as squares of the stride's size.
            logits: (N, R, 1).
            deltas: (N, R, 4).
            centerness: (N, R, 1).
            gt_instances: as for :meth:`forward`.
        """
        lesions = [of_status(gt, BoxStatus.LESION) for gt in gt_instances]
        labels, boxes = map(torch.stack, self.label_anchors([points], lesions))
        uncertain = [of_status(gt, BoxStatus.UNCERTAIN).gt_boxes for gt in gt_instances]
        known = torch.stack([~overlaps_any(points, boxes, self.ignore_iou) for boxes in uncertain]) | (labels == 0)
        log_counts("fcos", labels == 0, known & (labels != 0))
        count = global_normalizer(int((labels == 0).sum()), logits.device)
        losses = self.losses(
            [Boxes(points.tensor.expand(len(labels), -1, -1)[known])],
            [logits[known][None]],
            [labels[known]],
            [deltas[known][None]],
            [boxes[known]],
            [centerness[known][None]],
        )
        return {name: loss / count for name, loss in losses.items()}

    def _ema_update(self, *args) -> float:
        """Let the losses be sums, which the batch's own positives divide.

        Detectron2's moving average of the positives of former batches would begin anew when training resumes.
        """
        return 1.0

    def predict_proposals(
        self,
        points: Boxes,
        logits: Tensor,
        deltas: Tensor,
        centerness: Tensor,
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """The highest-scoring pixels' boxes, clipped to their images; arguments as for :meth:`losses_of_known`.

        The score is the geometric mean of lesion and centerness probability, as Detectron2's.
        """
        topk = min(self.pre_nms_topk[self.training], len(points))
        scores, index = (logits.sigmoid() * centerness.sigmoid())[..., 0].sqrt().topk(topk, dim=1)
        boxes = [
            self.box2box_transform.apply_deltas(own[chosen], points.tensor[chosen])
            for own, chosen in zip(deltas, index, strict=True)
        ]
        return make_proposals(torch.stack(boxes), scores.logit(eps=1e-6), image_sizes)
