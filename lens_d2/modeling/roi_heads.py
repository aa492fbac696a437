"""The detection head of LENS: shared FC layers, and output layers for each dataset (Section IV-C)."""

from __future__ import annotations

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, ROIHeads
from detectron2.modeling.roi_heads.box_head import build_box_head
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, ImageList, Instances, pairwise_ioa, pairwise_iou
from torch import Tensor, nn
from torchvision.ops import nms

from .targets import BoxStatus


@ROI_HEADS_REGISTRY.register()
class LENSROIHeads(ROIHeads):
    """Dataset-specific rescoring of universal proposals.

    Proposals go through ROIAlign and two FC layers that are shared; then every expert has its own
    classification layer (lesion or not) and box layer. Matching and sampling of proposals are Detectron2's,
    but for uncertain regions and hard negatives.
    """

    @configurable
    def __init__(
        self,
        *,
        experts: tuple[str, ...],
        box_in_features: list[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictors: dict[str, FastRCNNOutputLayers],
        ignore_iou: float,
        **kwargs,
    ):
        """
        Args:
            experts: names, one a dataset.
            box_in_features, box_pooler, box_head: as in Detectron2's StandardROIHeads.
            box_predictors: each expert's output layers.
            ignore_iou: a proposal that covers an uncertain region with at least this IoU, and is no lesion,
                is not sampled.
        """
        super().__init__(**kwargs)
        self.experts = tuple(experts)
        self.box_in_features = box_in_features
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictors = nn.ModuleDict(box_predictors)
        self.ignore_iou = ignore_iou

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        ret = super().from_config(cfg)
        in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        pooler = ROIPooler(
            output_size=cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
            scales=[1.0 / input_shape[f].stride for f in in_features],
            sampling_ratio=cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
            pooler_type=cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE,
        )
        resolution = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        channels = input_shape[in_features[0]].channels
        head = build_box_head(cfg, ShapeSpec(channels=channels, height=resolution, width=resolution))
        ret["experts"] = cfg.MODEL.LENS.EXPERTS
        ret["box_in_features"] = in_features
        ret["box_pooler"] = pooler
        ret["box_head"] = head
        ret["box_predictors"] = {
            name: FastRCNNOutputLayers(cfg, head.output_shape) for name in cfg.MODEL.LENS.EXPERTS
        }
        ret["ignore_iou"] = cfg.MODEL.ROI_HEADS.IGNORE_IOU
        return ret

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
        expert: str | None = None,
    ) -> tuple[list, dict[str, Tensor]]:
        """
        Args:
            images: of N images; only their sizes are used.
            features: feature maps by name.
            proposals: N, with ``proposal_boxes``.
            targets: N, with ``gt_boxes``, ``gt_classes`` (0) and ``gt_status``: in training only.
            expert: whose output layers learn from the targets.

        Returns:
            In training, the sampled proposals and "loss_class" and "loss_box"; else, for every image,
            {expert: Instances} as :meth:`inference` gives them, and {}.
        """
        if targets is None:
            return self.inference(self._box_features(features, proposals), proposals), {}
        proposals = self.label_and_sample_proposals(proposals, targets)
        predictor = self.box_predictors[expert]
        losses = predictor.losses(predictor(self._box_features(features, proposals)), proposals)
        return proposals, {"loss_class": losses["loss_cls"], "loss_box": losses["loss_box_reg"]}

    def _box_features(self, features: dict[str, Tensor], proposals: list[Instances]) -> Tensor:
        maps = [features[f] for f in self.box_in_features]
        return self.box_head(self.box_pooler(maps, [p.proposal_boxes for p in proposals]))

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        """Sample as Detectron2 does, among the proposals that say something about lesions.

        Left out are those on an uncertain region that are no known lesion.
        """
        kept, lesions = [], []
        for proposal, target in zip(proposals, targets, strict=True):
            lesion = target[target.gt_status == BoxStatus.LESION]
            uncertain = target.gt_boxes[target.gt_status == BoxStatus.UNCERTAIN]
            kept.append(proposal[~self._on_uncertain(proposal.proposal_boxes, uncertain, lesion.gt_boxes)])
            lesions.append(lesion)
        return super().label_and_sample_proposals(kept, lesions)

    def _on_uncertain(self, boxes: Boxes, uncertain: Boxes, lesions: Boxes) -> Tensor:
        """(len(boxes),) bool: the box is on an uncertain region, or inside one, and matches no lesion."""
        if not len(uncertain) or not len(boxes):
            return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        on_uncertain = pairwise_iou(boxes, uncertain).amax(dim=1) >= self.ignore_iou
        inside = pairwise_ioa(uncertain, boxes).amax(dim=0) >= self.ignore_iou
        if not len(lesions):
            return on_uncertain | inside
        on_lesion = self.proposal_matcher(pairwise_iou(lesions, boxes))[1] == 1
        return (on_uncertain | inside) & ~on_lesion

    def inference(self, box_features: Tensor, proposals: list[Instances]) -> list[dict[str, Instances]]:
        """Every expert's opinion of all proposals.

        Args:
            box_features: (R, D), the FC layers' output for the R proposals of all N images.
            proposals: N.

        Returns:
            For every image {expert: Instances}, each after its own score floor and NMS, with ``pred_boxes``,
            ``scores``, ``pred_classes`` (0) and ``expert_scores`` (n, experts): what each expert, in the
            order of ``self.experts``, says of the proposal that the box comes from.
        """
        predictions = {name: predictor(box_features) for name, predictor in self.box_predictors.items()}
        counts = [len(p) for p in proposals]
        expert_scores = torch.stack(
            [scores.softmax(dim=1)[:, 0] for scores, _ in predictions.values()], dim=1
        ).split(counts)
        boxes = {
            name: self.box_predictors[name].predict_boxes(prediction, proposals)
            for name, prediction in predictions.items()
        }
        return [
            {
                name: self._filter(boxes[name][i], expert_scores[i], column, proposal.image_size)
                for column, name in enumerate(self.experts)
            }
            for i, proposal in enumerate(proposals)
        ]

    def _filter(self, boxes: Tensor, expert_scores: Tensor, column: int, image_size) -> Instances:
        """One expert's detections in one image: score floor, NMS, at most so many."""
        predictor = self.box_predictors[self.experts[column]]
        scores = expert_scores[:, column]
        keep = (scores > predictor.test_score_thresh).nonzero()[:, 0]
        boxes = Boxes(boxes[keep])
        boxes.clip(image_size)
        chosen = nms(boxes.tensor, scores[keep], predictor.test_nms_thresh)[: predictor.test_topk_per_image]
        keep = keep[chosen]
        return Instances(
            image_size,
            pred_boxes=boxes[chosen],
            scores=scores[keep],
            pred_classes=torch.zeros_like(keep),
            expert_scores=expert_scores[keep],
        )
