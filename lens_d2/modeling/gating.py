"""A gate that says for each proposal how far to trust each expert. LENS names it as future work (end of VI-D)."""

from __future__ import annotations

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
    """

    def __init__(self, channels: int, experts: int, width: int):
        """
        Args:
            channels: of the features.
            experts: their number E.
            width: of the hidden layer.
        """
        super().__init__()
        self.hidden = nn.Linear(channels + experts, width)
        self.output = nn.Linear(width, experts + 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor, expert_scores: Tensor) -> tuple[Tensor, Tensor]:
        """Judge n proposals.

        Args:
            features: (n, channels).
            expert_scores: (n, E).

        Returns:
            (n, E) weights, whose sum is 1, and (n,) log odds.
        """
        log_odds = expert_scores.float().logit(eps=LOWEST)
        out = self.output(self.hidden(torch.cat([features.float(), log_odds], dim=1)).relu())
        weights, offset = out[:, :-1].softmax(dim=1), out[:, -1]
        return weights, (weights * log_odds).sum(dim=1) + offset


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
        ret["gate"] = Gate(channels, len(ret["experts"]), cfg.MODEL.GATE.FC_DIM)
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
