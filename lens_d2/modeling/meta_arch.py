"""LENS, a shared backbone, a proposal generator per expert, a shared detection head (Section IV-C); and CECN."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone, build_roi_heads
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.structures import ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ..structures.detections import FUSED
from .adapters import ExpertFeatures, features_of
from .selection import NOT_A_BOX, BoxSet, make_detections, nms_of_groups
from .supervision import seeded, with_hard_negatives_as_foreground

# From images and feature maps to the proposals of all experts, experts x images.
Propose = Callable[[ImageList, dict[str, Tensor]], list[list[Instances]]]


def fuse_experts(detections: Sequence[dict[str, Instances]], nms_thresh: float, topk: int) -> list[Instances]:
    """Pool the experts' boxes of each image and filter the overlapping ones by NMS (LENS, Section IV-C)."""
    pooled = [Instances.cat(list(per_image.values())) for per_image in detections]
    boxes, scores = [each.pred_boxes.tensor for each in pooled], [each.scores for each in pooled]
    kept = nms_of_groups(boxes, scores, nms_thresh, topk)
    return [each[keep] for each, keep in zip(pooled, kept, strict=True)]


def one_stage_detections(
    proposals: Sequence[dict[str, Instances]], score_thresh: float, nms_thresh: float, topk: int
) -> list[dict[str, Instances]]:
    """Turn the experts' proposals into detections, without a second stage (LENS, Table II).

    Args:
        proposals: of every expert in each image, with ``proposal_boxes`` and ``objectness_logits``.
        score_thresh: floor of the scores.
        nms_thresh: IoU of the NMS.
        topk: number of boxes of an expert that are kept at most.

    Returns:
        For each image {expert: Instances} with ``pred_boxes``, ``scores``, ``pred_classes`` (0) and
        ``expert_scores`` (n, experts), an expert's highest score among its boxes with at least the IoU
        ``nms_thresh`` with this one.
    """
    everyone = [own for per_image in proposals for own in per_image.values()]
    scores = [own.objectness_logits.sigmoid() for own in everyone]
    sets = [
        BoxSet(own.image_size, own.proposal_boxes.tensor, score)
        for own, score in zip(everyone, scores, strict=True)
    ]
    found = iter(make_detections(sets, score_thresh, nms_thresh, topk))
    detections = [{name: next(found) for name in per_image} for per_image in proposals]
    for kept in detections:
        for name, own in kept.items():
            theirs = [
                own.scores if other == name else best_overlapping(own, kept[other], nms_thresh) for other in kept
            ]
            own.expert_scores = torch.stack(theirs, dim=1)
    return detections


def best_overlapping(boxes: Instances, others: Instances, iou: float) -> Tensor:
    """(len(boxes),) the highest score of the other boxes whose IoU with each is at least ``iou``, or 0."""
    if not len(others):
        return torch.zeros_like(boxes.scores)
    overlapping = pairwise_iou(boxes.pred_boxes, others.pred_boxes) >= iou
    return (overlapping * others.scores).amax(dim=1)


def _config_of(cfg: CfgNode, expert: str) -> CfgNode:
    """The config of an expert's proposal generator: those of fully labelled datasets have all labels."""
    if expert in cfg.MODEL.LENS.PARTIALLY_LABELED:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.AFP.MISSING_LABELS, cfg.MODEL.LENS.LABELED_SHARE = "", 1.0
    return cfg


@META_ARCH_REGISTRY.register()
class LENS(nn.Module):
    """Lesion ENSemble.

    A training batch comes from one dataset. All experts' proposals are pooled for the detection head, but only the
    proposal generator and the output layers of the batch's own expert have losses; the other experts' parameters
    do not change.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generators: dict[str, nn.Module],
        roi_heads: nn.Module | None,
        pixel_mean: float,
        pixel_std: float,
        proposal_nms_thresh: float = 0.7,
        post_nms_topk: tuple[int, int] = (300, 100),
        score_thresh: float = 0.01,
        fusion_nms_thresh: float = 0.5,
        detections_per_image: int = 100,
        output: str = FUSED,
    ):
        """
        Args:
            backbone: from (N, slices, H, W) to feature maps by name.
            proposal_generators: one per expert, in order.
            roi_heads: as :class:`LENSROIHeads`; None: one stage, the proposals are the detections.
            pixel_mean: of the intensities 0..255.
            pixel_std: of the intensities 0..255.
            proposal_nms_thresh: IoU of the NMS among all experts' proposals.
            post_nms_topk: proposals that this leaves of an image, in training and at inference.
            score_thresh: floor of the detections' scores with one stage; with two, the heads have their own.
            fusion_nms_thresh: IoU of the NMS among the experts' detections.
            detections_per_image: fused detections that are kept at most.
            output: ``FUSED`` or the name of the expert whose detections are the model's "instances".
        """
        super().__init__()
        self.backbone = backbone
        self.proposal_generators = nn.ModuleDict(proposal_generators)
        self.roi_heads = roi_heads
        self.register_buffer("pixel_mean", torch.tensor(float(pixel_mean)), False)
        self.register_buffer("pixel_std", torch.tensor(float(pixel_std)), False)
        self.air = -float(pixel_mean) / float(pixel_std)  # a number, as a GPU's would have to be waited for
        self.proposal_nms_thresh = proposal_nms_thresh
        self.post_nms_topk = {True: post_nms_topk[0], False: post_nms_topk[1]}
        self.score_thresh, self.fusion_nms_thresh = score_thresh, fusion_nms_thresh
        self.detections_per_image = detections_per_image
        if output not in (FUSED, *proposal_generators):
            known = ", ".join((FUSED, *proposal_generators))
            raise ValueError(f"MODEL.LENS.OUTPUT is {output!r}: give one of {known}")
        self.output = output
        self.to(memory_format=torch.channels_last)  # a quarter less time on the CPU, the same results

    @classmethod
    def from_config(cls, cfg):
        """Read ``MODEL.LENS``, and build the backbone, the generators and the head."""
        backbone = build_backbone(cfg)
        shape = backbone.output_shape()
        return {
            "backbone": backbone,
            "proposal_generators": {
                name: build_proposal_generator(_config_of(cfg, name), shape) for name in cfg.MODEL.LENS.EXPERTS
            },
            "roi_heads": None if cfg.MODEL.LENS.ONE_STAGE else build_roi_heads(cfg, shape),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN[0],
            "pixel_std": cfg.MODEL.PIXEL_STD[0],
            "proposal_nms_thresh": cfg.MODEL.LENS.PROPOSAL_NMS_THRESH,
            "post_nms_topk": (cfg.MODEL.LENS.POST_NMS_TOPK_TRAIN, cfg.MODEL.LENS.POST_NMS_TOPK_TEST),
            "score_thresh": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            "fusion_nms_thresh": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            "detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "output": cfg.MODEL.LENS.OUTPUT,
        }

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.pixel_mean.device

    @property
    def domains(self) -> tuple[str, ...]:
        """Experts for each of which the backbone has feature maps of their own, see :mod:`.adapters`."""
        return getattr(self.backbone, "domains", ())

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, in order."""
        return tuple(self.proposal_generators)

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Detect, or learn from a batch of one dataset.

        Args:
            batched_inputs: samples of the mapper: "image" (slices, H, W) with intensities 0..255, and in
                training "instances", "expert", which all samples of a batch have in common, and "seed", of the
                sampling of proposals, which may be left out.

        Returns:
            In training the losses of Eq. 1 by name, weighted; else the list that :meth:`detect` gives, with what
            further heads say of "instances" (:mod:`.mulan`).

        Raises:
            ValueError: a batch mixes datasets.
        """
        images = self.preprocess_image([x["image"] for x in batched_inputs])
        if not self.training:
            features = self._features(images.tensor)
            detections = self.detect(features, images.image_sizes)
            if self.roi_heads is not None:
                self.roi_heads.forward_with_given_boxes(features, [each["instances"] for each in detections])
            return detections

        expert = batched_inputs[0]["expert"]
        if any(x["expert"] != expert for x in batched_inputs):
            raise ValueError(f"a batch mixes datasets: {sorted({x['expert'] for x in batched_inputs})}")
        features = self._features(images.tensor, expert)
        targets = [x["instances"].to(self.device) for x in batched_inputs]
        proposed = targets
        if self.roi_heads is not None and self.roi_heads.num_classes > 1:  # both classes are to be proposed
            proposed = [with_hard_negatives_as_foreground(x) for x in targets]
        seeds = [x["seed"] for x in batched_inputs] if "seed" in batched_inputs[0] else None
        with seeded(seeds and seeds[0], self.device):  # of what a generator draws, such as RPN's anchors
            proposals, losses = self._propose(features, images.image_sizes, proposed, expert)
        if self.roi_heads is not None:
            pooled = self._pool(proposals)
            losses.update(self.roi_heads(images, features, pooled, targets, expert=expert, seeds=seeds)[1])
        get_event_storage().put_scalar(f"{expert}/total_loss", float(sum(losses.values()).detach()))
        return losses

    def _features(self, images: Tensor, expert: str | None = None) -> dict[str, Tensor] | ExpertFeatures:
        """Feature maps of normalised images, for one expert or for all."""
        if not self.domains:
            return self.backbone(images)
        if expert is not None:
            return self.backbone(images, expert)
        return ExpertFeatures({name: self.backbone(images, name) for name in self.domains})

    def preprocess_image(self, images: list[Tensor]) -> ImageList:
        """Normalise intensities, and pad with air to a batch whose sides the backbone's stride divides."""
        images = [(x.to(self.device) - self.pixel_mean) / self.pixel_std for x in images]
        return ImageList.from_tensors(images, self.backbone.size_divisibility, pad_value=self.air)

    def detect(
        self,
        features: dict[str, Tensor] | ExpertFeatures,
        image_sizes: list[tuple[int, int]],
        propose: Propose | None = None,
    ) -> list[dict]:
        """Detections from feature maps, in the images' pixels.

        Args:
            features: maps by name, as the backbone gives them; or those of each expert, if it has ``domains``.
            image_sizes: height and width of each image, without padding.
            propose: takes the place of the proposal generators, see
                :func:`lens_d2.inference.joint_afp.joint_proposals`; None: they run one after another.

        Returns:
            For every image, "instances": the model's own detections, and "experts": {name: Instances} of
            ``FUSED`` and of every expert, each with ``pred_boxes``, ``scores`` and ``expert_scores``.
        """
        if propose is None:
            proposals, _ = self._propose(features, image_sizes)
        else:
            images = ImageList(next(iter(features.values())), image_sizes)
            everyone = zip(*propose(images, features), strict=True)
            proposals = [dict(zip(self.experts, per_image, strict=True)) for per_image in everyone]
        if self.roi_heads is None:
            results = one_stage_detections(
                proposals, self.score_thresh, self.fusion_nms_thresh, self.detections_per_image
            )
        else:
            results = self.roi_heads.inference(features, self._pool(proposals))
        if not all(FUSED in experts for experts in results):  # else the head has fused by itself
            fused = fuse_experts(results, self.fusion_nms_thresh, self.detections_per_image)
            results = [{FUSED: own, **experts} for own, experts in zip(fused, results, strict=True)]
        return [{"instances": experts[self.output], "experts": experts} for experts in results]

    def _propose(
        self,
        features: dict[str, Tensor] | ExpertFeatures,
        image_sizes: list[tuple[int, int]],
        targets: list[Instances] | None = None,
        expert: str | None = None,
    ) -> tuple[list[dict[str, Instances]], dict[str, Tensor]]:
        """Every image's proposals by expert, and the losses of the expert that learns.

        In training with one stage the other experts' proposals are not needed, and not made.
        """
        everyone, losses = {}, {}
        for name, generator in self.proposal_generators.items():
            own = features_of(features, name)
            images = ImageList(next(iter(own.values())), image_sizes)
            if name == expert:
                everyone[name], losses = generator(images, own, targets)
            elif expert is None or self.roi_heads is not None:
                with torch.no_grad():
                    everyone[name], _ = generator(images, own)
        return [dict(zip(everyone, own, strict=True)) for own in zip(*everyone.values(), strict=True)], losses

    @torch.no_grad()
    def _pool(self, proposals: list[dict[str, Instances]]) -> list[Instances]:
        """Best of each image's proposals of all experts, after NMS."""
        pooled = [Instances.cat(list(per_image.values())) for per_image in proposals]
        boxes = [each.proposal_boxes.tensor for each in pooled]
        logits = [each.objectness_logits for each in pooled]
        broken = [
            ~torch.isfinite(own).all(dim=1) | torch.isnan(logit) | torch.isposinf(logit)
            for own, logit in zip(boxes, logits, strict=True)
        ]
        if self.training and torch.cat(broken).any():
            raise FloatingPointError("proposals contain Inf or NaN: training has diverged")
        scores = [logit.masked_fill(own, NOT_A_BOX) for logit, own in zip(logits, broken, strict=True)]
        kept = nms_of_groups(boxes, scores, self.proposal_nms_thresh, self.post_nms_topk[self.training])
        return [each[keep] for each, keep in zip(pooled, kept, strict=True)]


@META_ARCH_REGISTRY.register()
class CECN(LENS):
    """Contextual-enhanced CenterNet: the 2.5D DenseNet with CenterNet's head (Lesion-Harvester, Section III-B).

    ``INPUT.NUM_SLICES`` is 9; with 3 it is plain CenterNet, without 3D context. It trains, infers and mines as
    LENS does, with one stage. For CenterNet's head with LENS's second stage, set
    ``MODEL.PROPOSAL_GENERATOR.NAME: CenterNet``.
    """

    @classmethod
    def from_config(cls, cfg):
        """Read the same as LENS, with CenterNet and one stage."""
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.PROPOSAL_GENERATOR.NAME = "CenterNet"
        cfg.MODEL.LENS.ONE_STAGE = True
        return super().from_config(cfg)
