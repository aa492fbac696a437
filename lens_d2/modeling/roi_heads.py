"""Detection head of LENS: shared FC layers, and output layers for each dataset (Section IV-C)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, ROIHeads
from detectron2.modeling.roi_heads.box_head import build_box_head
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn

from ..structures.status import BoxStatus
from .adapters import ExpertFeatures
from .backbone import shape_of
from .missing_labels import PartialLabels
from .selection import BoxSet, make_detections, without_gaps
from .supervision import global_normalizer, of_status, overlaps_any, seeded, weights_of

ONLY_EXPERT = "lesion"  # the expert's name where MODEL.LENS.EXPERTS names none


def build_pooler(head: CfgNode, shapes: list[ShapeSpec]) -> ROIPooler:
    """Build the pooler of a head.

    Args:
        head: its part of the config, such as ``MODEL.ROI_BOX_HEAD``.
        shapes: of the feature maps.
    """
    return ROIPooler(
        output_size=head.POOLER_RESOLUTION,
        scales=[1.0 / shape.stride for shape in shapes],
        sampling_ratio=head.POOLER_SAMPLING_RATIO,
        pooler_type=head.POOLER_TYPE,
    )


def largest_overlap(boxes: Boxes, others: Boxes) -> Tensor:
    """(n,) highest IoU of n boxes with one of the others; 0 without others."""
    if not len(others):
        return boxes.tensor.new_zeros(len(boxes))
    return pairwise_iou(boxes, others).amax(dim=1)


@ROI_HEADS_REGISTRY.register()
class LENSROIHeads(ROIHeads):
    """Dataset-specific rescoring of universal proposals.

    Proposals go through ROIAlign and two FC layers that are shared; then every expert has its own classification
    layer (lesion or not) and box layer. Matching and sampling of proposals are Detectron2's, except for uncertain
    regions, hard negatives and missing labels.

    Hard negatives are background, or, with two classes, the second one (ULDor).

    In one of Detectron2's own detectors it has one expert.
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
        partial_labels: Mapping[str, PartialLabels | None] = MappingProxyType({}),
        **kwargs,
    ):
        """
        Args:
            experts: names, one a dataset.
            box_in_features: as in Detectron2's StandardROIHeads.
            box_pooler: as there.
            box_head: as there.
            box_predictors: each expert's output layers.
            ignore_iou: IoU of a proposal with an uncertain region, or its share inside one, from which on it is
                not sampled unless it is a lesion; and IoU with a hard negative from which on it is on that.
            partial_labels: by expert, the classification loss if some of its lesions are not labelled; None, or an
                expert without an entry: all lesions are labelled.
            kwargs: as Detectron2's ROIHeads; ``num_classes`` 1, or 2 with a class of hard negatives.
        """
        super().__init__(**kwargs)
        self.experts = tuple(experts)
        self.box_in_features = box_in_features
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictors = nn.ModuleDict(box_predictors)
        self.ignore_iou = ignore_iou
        self.partial_labels = dict(partial_labels)

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        """Read ``MODEL.ROI_HEADS``, ``MODEL.ROI_BOX_HEAD`` and ``MODEL.LENS.EXPERTS``."""
        ret = super().from_config(cfg)
        in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        shapes = [shape_of(input_shape, name, "MODEL.ROI_HEADS.IN_FEATURES") for name in in_features]
        pooler = build_pooler(cfg.MODEL.ROI_BOX_HEAD, shapes)
        resolution = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        channels = shapes[0].channels
        head = build_box_head(cfg, ShapeSpec(channels=channels, height=resolution, width=resolution))
        ret["experts"] = experts = tuple(cfg.MODEL.LENS.EXPERTS) or (ONLY_EXPERT,)
        ret["box_in_features"] = in_features
        ret["box_pooler"] = pooler
        ret["box_head"] = head
        ret["box_predictors"] = {name: FastRCNNOutputLayers(cfg, head.output_shape) for name in experts}
        ret["ignore_iou"] = cfg.MODEL.ROI_HEADS.IGNORE_IOU
        partial_labels = PartialLabels.from_config(cfg, cfg.MODEL.ROI_HEADS.MISSING_LABELS)
        partly_labeled = {*cfg.MODEL.LENS.PARTIALLY_LABELED} & {*experts} if cfg.MODEL.LENS.EXPERTS else experts
        ret["partial_labels"] = dict.fromkeys(partly_labeled, partial_labels)
        return ret

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
        expert: str | None = None,
        seeds: list[int] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Detect, or learn from targets; as Detectron2's for a head with one expert.

        Args:
            images: of N images; only their sizes are used.
            features: feature maps by name.
            proposals: N, with ``proposal_boxes``.
            targets: N, with ``gt_boxes``, ``gt_classes`` (0) and, unless all are lesions, ``gt_status``
                (:class:`BoxStatus`): in training only.
            expert: whose output layers learn, or whose detections are wanted; None: the only one.
            seeds: N, of the sampling of proposals; None: it is not seeded.

        Returns:
            With targets, the sampled proposals, "loss_cls", "loss_box_reg" and :meth:`further_losses`; else the
            expert's detections in each image, as :meth:`inference` and :meth:`forward_with_given_boxes` give them,
            and {}.

        Raises:
            ValueError: no expert is named and there are several.
        """
        if expert is None and len(self.experts) > 1:
            raise ValueError(
                f"the detection head has the experts {', '.join(self.experts)}: name one, or set"
                " MODEL.LENS.EXPERTS to one"
            )
        if expert is None:  # in Detectron2's detectors, which do not filter proposals
            expert, proposals = self.experts[0], [without_gaps(own) for own in proposals]
        if targets is None:
            instances = [own[expert] for own in self.inference(features, proposals)]
            return self.forward_with_given_boxes(features, instances), {}
        partial_labels = self.partial_labels.get(expert)
        proposals = self.label_and_sample_proposals(proposals, targets, seeds, partial_labels)
        predictor = self.box_predictors[expert]
        box_features = self._box_features(features, proposals)
        predictions = predictor(box_features)
        losses = predictor.losses(predictions, proposals)
        if proposals[0].has("weight"):
            losses["loss_cls"] = self._weighted_classification_loss(predictions[0], proposals, partial_labels)
        count = sum(len(p) for p in proposals)
        share = count / global_normalizer(count, predictions[0].device)  # the losses are means over the rank's own
        losses = {name: loss * share for name, loss in losses.items()}
        return proposals, losses | self.further_losses(features, proposals, box_features, expert)

    def _box_features(self, features: dict[str, Tensor], proposals: list[Instances]) -> Tensor:
        return self.box_head(self.box_pooler(self._maps(features), [p.proposal_boxes for p in proposals]))

    def _maps(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The maps to pool boxes from, in single precision: ROIAlign rounds boxes to the precision of the maps."""
        return [features[name].float() for name in self.box_in_features]

    @torch.no_grad()
    def label_and_sample_proposals(
        self,
        proposals: list[Instances],
        targets: list[Instances],
        seeds: list[int] | None = None,
        partial_labels: PartialLabels | None = None,
    ) -> list[Instances]:
        """Sample as Detectron2 does, without proposals on uncertain regions and background of weight 0.

        A proposal on an uncertain region that matches a lesion is kept. The sampled proposals have the field
        ``certain``, whether the proposal is on a hard negative. If lesions are not labelled, or a target has
        ``gt_weight``, they have ``weight``; in the first case also ``overlap``, the largest IoU with a lesion, and
        ``seen``, the sampled share of the image's background over that of its foreground.

        Args:
            proposals: N, with ``proposal_boxes``.
            targets: N, as for :meth:`forward`.
            seeds: N or None.
            partial_labels: where lesions are not labelled.

        Returns:
            N, with the fields of Detectron2's.
        """
        eligible = (
            self._eligible(proposal, target, partial_labels)
            for proposal, target in zip(proposals, targets, strict=True)
        )
        kept, known = zip(*eligible, strict=True)
        sampled = []
        with EventStorage():  # each image's counts, of which the mean is logged below
            for proposal, target, seed in zip(kept, known, seeds or [None] * len(kept), strict=True):
                with seeded(seed, proposal.proposal_boxes.device):
                    sampled += super().label_and_sample_proposals([proposal], [target])
        background = [(proposal.gt_classes == self.num_classes).sum().item() for proposal in sampled]
        storage, total = get_event_storage(), sum(map(len, sampled))
        storage.put_scalar("roi_head/num_fg_samples", (total - sum(background)) / len(sampled))
        storage.put_scalar("roi_head/num_bg_samples", sum(background) / len(sampled))
        for proposal, target in zip(sampled, targets, strict=True):
            proposal.certain = self._on_negative(proposal, target)
        if partial_labels is not None or any(target.has("gt_weight") for target in targets):
            for proposal in sampled:
                own = weights_of(proposal, proposal.gt_classes.device)
                proposal.weight = own.where(proposal.gt_classes == 0, torch.ones_like(own))
        if partial_labels is not None:
            for proposal, target, before, classes, count in zip(
                sampled, targets, kept, known, background, strict=True
            ):
                lesions = of_status(target, BoxStatus.LESION).gt_boxes
                proposal.overlap = overlap = largest_overlap(proposal.proposal_boxes, lesions)
                matched = int(self._matches(before, classes).sum())
                given = len(classes) if self.proposal_append_gt else 0
                of_background = count / max(len(before) - matched, count, 1)
                of_foreground = (len(proposal) - count) / max(matched + given, 1)
                seen = of_background / of_foreground if of_foreground else 0.0
                proposal.seen = torch.full_like(overlap, seen)
        return sampled

    def _eligible(
        self, proposal: Instances, target: Instances, partial_labels: PartialLabels | None
    ) -> tuple[Instances, Instances]:
        """The proposals of an image that may be sampled, and the boxes that they are matched with."""
        lesion, uncertain, negative = (of_status(target, status) for status in BoxStatus)
        proposal = proposal[~self._on_uncertain(proposal.proposal_boxes, uncertain.gt_boxes, lesion.gt_boxes)]
        negative.gt_classes = torch.ones_like(negative.gt_classes)
        classes = Instances.cat([lesion, negative]) if self.num_classes > 1 else lesion
        if partial_labels is not None:
            weight = partial_labels.weights(largest_overlap(proposal.proposal_boxes, lesion.gt_boxes))
            is_kept = self._matches(proposal, classes) | self._on_negative(proposal, target) | (weight > 0)
            proposal = proposal[is_kept]
        return proposal, classes

    def _on_negative(self, proposals: Instances, target: Instances) -> Tensor:
        """(n,) bool, the proposals that are on a hard negative."""
        negatives = of_status(target, BoxStatus.HARD_NEGATIVE).gt_boxes
        return largest_overlap(proposals.proposal_boxes, negatives) >= self.ignore_iou

    def _matches(self, proposals: Instances, classes: Instances) -> Tensor:
        """(n,) bool, the proposals that are foreground of any class."""
        return self.proposal_matcher(pairwise_iou(classes.gt_boxes, proposals.proposal_boxes))[1] == 1

    def _weighted_classification_loss(
        self, logits: Tensor, proposals: list[Instances], partial_labels: PartialLabels | None = None
    ) -> Tensor:
        """As Detectron2's, the mean over the proposals, each with its weight."""
        classes, weight = (torch.cat([p.get(key) for p in proposals]) for key in ("gt_classes", "weight"))
        count = max(len(classes), 1)
        if partial_labels is None:
            return (F.cross_entropy(logits, classes, reduction="none") * weight).sum() / count
        overlap, certain, seen = (
            torch.cat([p.get(key) for p in proposals]) for key in ("overlap", "certain", "seen")
        )
        is_lesion, score = classes == 0, logits.detach().softmax(dim=1)[:, 0]
        unknown = (classes == self.num_classes) & ~certain
        weight = torch.where(unknown, weight * partial_labels.weights(overlap, score), weight)
        others = classes.masked_fill(is_lesion, self.num_classes)
        as_lesion, as_background = (
            F.cross_entropy(logits, own, reduction="none") for own in (torch.zeros_like(classes), others)
        )
        return partial_labels.loss(as_lesion, as_background, is_lesion, ~unknown, weight, seen) / count

    def _on_uncertain(self, boxes: Boxes, uncertain: Boxes, lesions: Boxes) -> Tensor:
        """(len(boxes),) bool: the box is on an uncertain region, or inside one, and matches no lesion."""
        uncertain_ones = overlaps_any(boxes, uncertain, self.ignore_iou)
        if not len(lesions):
            return uncertain_ones
        return uncertain_ones & (self.proposal_matcher(pairwise_iou(lesions, boxes))[1] != 1)

    def inference(
        self, features: dict[str, Tensor] | ExpertFeatures, proposals: list[Instances]
    ) -> list[dict[str, Instances]]:
        """Every expert's detections from all proposals.

        Args:
            features: feature maps of N images by name, of all experts or of each.
            proposals: N, with ``proposal_boxes``.

        Returns:
            For every image {expert: Instances}, each after its own score floor and NMS, with ``pred_boxes``,
            ``scores``, ``pred_classes`` (0) and ``expert_scores`` (n, experts): the score that each expert, in the
            order of ``self.experts``, gives the proposal that the box comes from.
        """
        shared = None if isinstance(features, ExpertFeatures) else self._box_features(features, proposals)
        predictions = {
            name: predictor(self._box_features(features[name], proposals) if shared is None else shared)
            for name, predictor in self.box_predictors.items()
        }
        counts = [len(p) for p in proposals]
        scores = torch.stack([own.float().softmax(dim=1)[:, 0] for own, _ in predictions.values()], dim=1)
        boxes = [
            torch.cat([own[:, :4] for own in self.box_predictors[name].predict_boxes(prediction, proposals)])
            for name, prediction in predictions.items()
        ]
        return self.detections(
            shared, scores, torch.stack(boxes, dim=1), counts, [p.image_size for p in proposals]
        )

    def detections(
        self,
        box_features: Tensor | None,
        expert_scores: Tensor,
        boxes: Tensor,
        counts: list[int],
        image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Instances]]:
        """Detections from what all experts say of all proposals.

        A class that fuses the experts by itself adds its own under ``FUSED``; this one leaves that to LENS.

        Args:
            box_features: (n, FC_DIM) of the proposals; None if they differ between experts.
            expert_scores: (n, E).
            boxes: (n, E, 4), every expert's box for each proposal.
            counts: proposals of each image.
            image_sizes: height and width of each image.

        Returns:
            as :meth:`inference`.
        """
        found = self.filter(boxes, expert_scores, expert_scores, counts, image_sizes)
        return [dict(zip(self.experts, per_image, strict=True)) for per_image in found]

    def further_losses(
        self, features: dict[str, Tensor], proposals: list[Instances], box_features: Tensor, expert: str
    ) -> dict[str, Tensor]:
        """Losses of further heads, by name; this class has none.

        Args:
            features: feature maps of N images by name.
            proposals: N, sampled.
            box_features: (n, FC_DIM) of all of them.
            expert: that learns.
        """
        return {}

    def forward_with_given_boxes(
        self, features: dict[str, Tensor] | ExpertFeatures, instances: list[Instances]
    ) -> list[Instances]:
        """Add what further heads say of detections, as Detectron2's; this class has none."""
        return instances

    def filter(
        self,
        boxes: Tensor,
        scores: Tensor,
        expert_scores: Tensor,
        counts: list[int],
        image_sizes: list[tuple[int, int]],
    ) -> list[list[Instances]]:
        """Detections after score floor, NMS and limit, of each of C opinions on the same n proposals.

        Args:
            boxes: (n, C, 4)
            scores: (n, C)
            expert_scores: (n, E), which go with the boxes.
            counts: proposals of each image.
            image_sizes: height and width of each image.

        Returns:
            C of each image.
        """
        settings = self.box_predictors[self.experts[0]]  # all experts have the same
        parts = zip(image_sizes, *(x.split(counts) for x in (boxes, scores, expert_scores)), strict=True)
        sets = [
            BoxSet(size, own, score, {"expert_scores": of_experts})
            for size, per_image, opinions, of_experts in parts
            for own, score in zip(per_image.unbind(dim=1), opinions.unbind(dim=1), strict=True)
        ]
        limits = settings.test_score_thresh, settings.test_nms_thresh, settings.test_topk_per_image
        found, together = make_detections(sets, *limits), scores.shape[1]
        return [found[i : i + together] for i in range(0, len(found), together)]
