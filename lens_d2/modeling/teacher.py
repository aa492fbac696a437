"""A teacher beside the student, in one training, which labels lesions that have no label.

The teacher's weights are a moving average of the student's, so that it is steadier. It looks for lesions on the
images that the student learns from: what it is sure of and nobody has marked is a lesion for the student, with the
teacher's score as weight, and what it is less sure of is left out. Neither of the papers has one; Liu et al. have
(2021), and on DeepLesion arXiv:2303.15024 and 2309.13306, of which the latter's bank of predictions is left out.
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..structures.status import BoxStatus
from .supervision import on_uncertain, weights_of

SMALLEST = 1.0  # pixels, of the sides of a box that becomes a label


class Teacher(AveragedModel):
    """The moving average of a detector's weights and buffers, and the labels that it gives.

    It begins with :meth:`start`; :meth:`update_parameters` takes in the student's weights after each step.
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
            iou: with a known box, or share of the detection inside one, from which on it is known.
        """
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.requires_grad_(False).eval()
        self.experts, self.start_iter = experts, start_iter
        self.lesion_score, self.uncertain_score, self.iou = lesion_score, uncertain_score, iou

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> Teacher | None:
        """Reads ``MODEL.TEACHER``; None unless it is enabled."""
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

    def start(self, model: nn.Module) -> None:
        """Copy the student's weights before its first step; a teacher of an earlier run stays as it is."""
        if self.n_averaged == 0:
            self.update_parameters(model)

    @torch.no_grad()
    def label(self, batch: list[dict]) -> list[dict]:
        """Add to a batch what the teacher finds in it, see :func:`with_pseudo_labels`.

        Args:
            batch: the mapper's samples, of one expert.

        Returns:
            the samples with more "instances", the mean numbers of an image being logged as "teacher/num_lesions"
            and "teacher/num_uncertain"; or the batch itself, if its dataset is fully labelled or the teacher has
            not followed the student for ``start_iter`` steps.
        """
        expert = batch[0]["expert"]
        if expert not in self.experts or self.n_averaged <= self.start_iter:
            return batch
        labelled, new = [], []
        for sample, found in zip(batch, self.module(batch), strict=True):
            detections = found["experts"][expert].to("cpu")
            targets = with_pseudo_labels(
                sample["instances"], detections, self.lesion_score, self.uncertain_score, self.iou
            )
            labelled.append({**sample, "instances": targets})
            new.append(targets.gt_status[len(sample["instances"]) :])
        storage, statuses = get_event_storage(), torch.cat(new)
        for name, status in (("lesions", BoxStatus.LESION), ("uncertain", BoxStatus.UNCERTAIN)):
            storage.put_scalar(f"teacher/num_{name}", (statuses == status).sum().item() / len(batch))
        return labelled


def with_pseudo_labels(
    targets: Instances, detections: Instances, lesion_score: float, uncertain_score: float, iou: float
) -> Instances:
    """Join targets and the detections that overlap none of them, as lesions or uncertain regions.

    Args:
        targets: of a sample, as the mapper gives them.
        detections: with ``pred_boxes`` and ``scores``, in the same image.
        lesion_score: from which on a detection is a lesion, with its score as ``gt_weight``.
        uncertain_score: from which on it is at least an uncertain region.
        iou: with a target, or share of the detection inside it, from which on a detection overlaps it.

    Returns:
        with the fields of the targets and ``gt_weight``; a new box has no mark, and no tag.
    """
    new = detections[(detections.scores >= uncertain_score) & detections.pred_boxes.nonempty(SMALLEST)]
    new = new[~on_uncertain(new.pred_boxes, targets.gt_boxes, iou)]
    is_lesion = new.scores >= lesion_score
    status = torch.full((len(new),), int(BoxStatus.UNCERTAIN)).masked_fill(is_lesion, int(BoxStatus.LESION))
    weight = new.scores.masked_fill(~is_lesion, 1.0)
    targets = Instances(targets.image_size, **targets.get_fields())
    targets.gt_weight = weights_of(targets, weight.device)
    others = {name: values for name, values in targets.get_fields().items() if name != "gt_boxes"}
    fields = {name: values.new_zeros(len(new), *values.shape[1:]) for name, values in others.items()}
    fields |= {"gt_boxes": new.pred_boxes, "gt_status": status, "gt_weight": weight}
    if targets.has("gt_recist"):
        fields["gt_recist"] = torch.full_like(fields["gt_recist"], torch.nan)
    labels = Instances(targets.image_size, **{name: fields[name] for name in targets.get_fields()})
    return Instances.cat([targets, labels])
