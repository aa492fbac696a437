"""A gate that says for each proposal how far to trust each expert. LENS names it as future work (end of VI-D)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Instances
from torch import Tensor, nn

from ..io.errors import DataError
from ..structures.detections import FUSED
from .roi_heads import LENSROIHeads
from .supervision import global_normalizer, weights_of

LOWEST = 1e-4  # scores are at least this far from 0 and 1 where their log odds are taken


class Gate(nn.Module):
    """From a proposal's features and its experts' scores to weights of the experts and one score.

    The log odds are the weighted mean of the experts' and an offset. It begins with equal weights and no offset.
    What it learns of an expert is stored by its name, so that the order may change, and others be added.
    """

    def __init__(self, channels: int, experts: Sequence[str], width: int):
        """
        Args:
            channels: of the features.
            experts: E names.
            width: of the hidden layer.
        """
        super().__init__()
        self.hidden = nn.Linear(channels, width)
        self.hidden_of = nn.ParameterDict([(name, nn.Parameter(torch.empty(width))) for name in experts])
        self.trust = nn.ModuleDict({name: nn.Linear(width, 1) for name in experts})
        self.offset = nn.Linear(width, 1)
        bound = (channels + len(experts)) ** -0.5  # as of one linear layer
        for parameter in (*self.hidden.parameters(), *self.hidden_of.values()):
            nn.init.uniform_(parameter, -bound, bound)
        for parameter in (*self.trust.parameters(), *self.offset.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, expert_scores: Tensor) -> tuple[Tensor, Tensor]:
        """Judge n proposals.

        Args:
            features: (n, channels).
            expert_scores: (n, E), in the order of the experts' names.

        Returns:
            (n, E) weights, whose sum is 1, and (n,) log odds.
        """
        log_odds = expert_scores.float().logit(eps=LOWEST)
        hidden = (self.hidden(features.float()) + log_odds @ torch.stack([*self.hidden_of.values()])).relu()
        weights = torch.cat([layer(hidden) for layer in self.trust.values()], dim=1).softmax(dim=1)
        return weights, (weights * log_odds).sum(dim=1) + self.offset(hidden)[:, 0]


@ROI_HEADS_REGISTRY.register()
class GatedROIHeads(LENSROIHeads):
    """LENS's detection head, whose experts a :class:`Gate` fuses, instead of NMS.

    The gate learns from the proposals that the batch's own expert learns from: lesions of any dataset, given or
    mined, are lesions. A dataset does not label lesions of other types, so background weighs 1 minus the highest
    score that another expert gives it; hard negatives, which are known not to be lesions, weigh 1.
    Nothing but the gate learns from this: the other weights are those of a training without it, unless the
    gradients of all are clipped together (``CLIP_TYPE`` "full_model"). A fused detection's box is the weighted
    mean of the experts'.
    """

    @configurable
    def __init__(self, *, gate: Gate, **kwargs):
        """
        Args:
            gate: of all experts.
            kwargs: as :class:`LENSROIHeads`.
        """
        super().__init__(**kwargs)
        self.gate = gate

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        """Read ``MODEL.GATE``, beside what LENS's head reads.

        Raises:
            DataError: experts have features of their own.
        """
        if cfg.MODEL.DENSENET.ADAPTERS:
            fault = "GatedROIHeads needs features that all experts share; MODEL.DENSENET.ADAPTERS has to be empty"
            raise DataError("MODEL.ROI_HEADS.NAME", fault)
        ret = super().from_config(cfg, input_shape)
        channels = ret["box_head"].output_shape.channels
        ret["gate"] = Gate(channels, ret["experts"], cfg.MODEL.GATE.FC_DIM)
        return ret

    def further_losses(
        self, features: dict[str, Tensor], proposals: list[Instances], box_features: Tensor, expert: str
    ) -> dict[str, Tensor]:
        """The gate's, "loss_gate": the mean cross-entropy of the proposals by their weights.

        Args:
            features: not used.
            proposals: N, sampled, with ``certain``, and ``gt_weight`` where a lesion's is not 1.
            box_features: (n, FC_DIM) of all of them.
            expert: of the dataset that they come from.
        """
        with torch.no_grad():
            shared = box_features.detach()
            scores = {
                name: predictor(shared)[0].float().softmax(dim=1)[:, 0]
                for name, predictor in self.box_predictors.items()
            }
        others = [own for name, own in scores.items() if name != expert]
        weight = 1 - torch.stack(others).amax(dim=0) if others else torch.ones_like(scores[expert])
        weight = weight.masked_fill(torch.cat([x.certain for x in proposals]), 1.0)
        is_lesion = torch.cat([x.gt_classes for x in proposals]) == 0
        weight = torch.where(is_lesion, torch.cat([weights_of(x, weight.device) for x in proposals]), weight)
        log_odds = self.gate(shared, torch.stack(list(scores.values()), dim=1))[1]
        loss = F.binary_cross_entropy_with_logits(log_odds, is_lesion.float(), weight, reduction="sum")
        return {"loss_gate": loss / global_normalizer(len(weight), loss.device)}

    def detections(
        self,
        box_features: Tensor,
        expert_scores: Tensor,
        boxes: Tensor,
        counts: list[int],
        image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Instances]]:
        """The experts' detections, and the gate's under ``FUSED``; arguments as in the base class."""
        weights, log_odds = self.gate(box_features, expert_scores)
        mean, scores = (boxes * weights[..., None]).sum(dim=1, keepdim=True), log_odds.sigmoid()[:, None]
        fused = self.filter(mean, scores, expert_scores, counts, image_sizes)
        experts = super().detections(box_features, expert_scores, boxes, counts, image_sizes)
        return [{FUSED: own} | others for (own,), others in zip(fused, experts, strict=True)]
