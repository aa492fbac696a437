"""A teacher beside the student, in one training, which labels lesions that have no label.

The teacher's weights are a moving average of the student's, so that it is steadier. It looks for lesions on the
images that the student learns from: what it is sure of and nobody has marked is a lesion for the student, with the
teacher's score as weight, and what it is less sure of is left out (Liu et al., 2021; on DeepLesion,
arXiv:2303.15024 and 2309.13306). In neither paper.
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances, pairwise_iou
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..structures.status import BoxStatus

SMALLEST = 1.0  # pixels, of the sides of a box that becomes a label


class Teacher(AveragedModel):
    """The moving average of a detector's weights and buffers, and the labels that it gives.

    :meth:`update_parameters` takes the student's weights in after each step; the first time it copies them.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        experts: tuple[str, ...],
        decay: float = 0.999,
        start_iter: int = 1000,
        lesion_score: float = 0.95,
        uncertain_score: float = 0.5,
        iou: float = 0.3,
    ):
        """
        Args:
            model: the student, a :class:`~lens_d2.modeling.meta_arch.LENS`.
            experts: whose datasets are partially labelled; batches of others are left as they are.
            decay: of the moving average, a step.
            start_iter: steps after which the teacher begins to label.
            lesion_score: from which on a detection is a lesion.
            uncertain_score: from which on it is at least an uncertain region.
            iou: with a known box, from which on a detection is known.
        """
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.requires_grad_(False).eval()
        self.experts, self.start_iter = experts, start_iter
        self.lesion_score, self.uncertain_score, self.iou = lesion_score, uncertain_score, iou

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> Teacher | None:
        """Of ``MODEL.TEACHER``; None unless it is enabled."""
        keys = cfg.MODEL.TEACHER
        if not keys.ENABLED:
            return None
        return cls(
            model,
            experts=tuple(cfg.MODEL.LENS.PARTIALLY_LABELED),
            decay=keys.DECAY,
            start_iter=keys.START_ITER,
            lesion_score=keys.LESION_SCORE,
            uncertain_score=keys.UNCERTAIN_SCORE,
            iou=keys.IOU,
        )

    @torch.no_grad()
    def label(self, batch: list[dict]) -> list[dict]:
        """A batch of the mapper's samples with what the teacher finds in them; see :func:`with_pseudo_labels`."""
        expert = batch[0]["expert"]
        if expert not in self.experts or self.n_averaged < self.start_iter:
            return batch
        labelled = []
        for sample, found in zip(batch, self.module(batch), strict=True):
            detections = found["experts"][expert].to("cpu")
            targets = with_pseudo_labels(
                sample["instances"], detections, self.lesion_score, self.uncertain_score, self.iou
            )
            labelled.append({**sample, "instances": targets})
        return labelled


def with_pseudo_labels(
    targets: Instances, detections: Instances, lesion_score: float, uncertain_score: float, iou: float
) -> Instances:
    """Targets and the detections that overlap none of them, as lesions or uncertain regions.

    Args:
        targets: of a sample, as the mapper gives them.
        detections: with ``pred_boxes`` and ``scores``, in the same image.
        lesion_score: from which on a detection is a lesion, with its score as ``gt_weight``.
        uncertain_score: from which on it is at least an uncertain region.
        iou: from which on a detection overlaps a target.

    Returns:
        with the fields of the targets; a new box has no mark, and no tag.
    """
    new = detections[(detections.scores >= uncertain_score) & detections.pred_boxes.nonempty(SMALLEST)]
    if len(targets) and len(new):
        new = new[pairwise_iou(new.pred_boxes, targets.gt_boxes).amax(dim=1) < iou]
    is_lesion = new.scores >= lesion_score
    status = torch.full((len(new),), int(BoxStatus.UNCERTAIN)).masked_fill(is_lesion, int(BoxStatus.LESION))
    weight = new.scores.masked_fill(~is_lesion, 1.0)
    others = {name: values for name, values in targets.get_fields().items() if name != "gt_boxes"}
    fields = {name: values.new_zeros(len(new), *values.shape[1:]) for name, values in others.items()}
    fields |= {"gt_boxes": new.pred_boxes, "gt_status": status, "gt_weight": weight}
    if targets.has("gt_recist"):
        fields["gt_recist"] = torch.full_like(fields["gt_recist"], torch.nan)
    labels = Instances(targets.image_size, **{name: fields[name] for name in targets.get_fields()})
    return Instances.cat([targets, labels])
