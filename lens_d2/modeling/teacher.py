"""A teacher that labels unlabelled lesions for the student while it trains.

The teacher's weights are a moving average of the student's, which makes it steadier. It looks for lesions on the
images that the student learns from: what it is sure of and nobody has marked is a lesion for the student, with the
teacher's score as weight; what it is less sure of is left out of the losses. CECN weights all lesions alike: there
the score only selects. With a bank of its predictions, only those that persist become lesions. Neither paper has a
teacher; Liu et al. (2021) do, and on DeepLesion arXiv:2303.15024 and, with a bank, arXiv:2309.13306.
"""

from __future__ import annotations

import itertools

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..structures.status import BoxStatus
from .prediction_bank import PredictionBank, Visit
from .supervision import overlaps_any, weights_of

SMALLEST = 1.0  # pixels, of the sides of a box that becomes a label


class Teacher(AveragedModel):
    """The moving average of a detector's weights and buffers, and the labels that it gives.

    It begins with :meth:`start`; :meth:`update_parameters` takes in the student's weights after each step, and
    :meth:`remember` what it has found.

    Attributes:
        bank: its predictions, if lesions have to persist; else None.
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
        visits: int = 1,
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
            visits: consecutive ones of a slice, in which a finding must recur to count as a lesion.
        """
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.requires_grad_(False).eval()
        self.experts, self.start_iter = experts, start_iter
        self.lesion_score, self.uncertain_score, self.iou = lesion_score, uncertain_score, iou
        self.visits, self.bank = visits, PredictionBank() if visits > 1 else None
        self._new_visits: list[Visit] = []

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> Teacher | None:
        """Read ``MODEL.TEACHER``; None unless it is enabled."""
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
            visits=keys.VISITS,
        )

    def start(self, model: nn.Module) -> None:
        """Copy the student's weights before its first step; a teacher of an earlier run stays as it is."""
        if self.n_averaged == 0:
            self.update_parameters(model)

    @torch.no_grad()
    def label(self, batch: list[dict]) -> list[dict]:
        """Add to a batch what the teacher finds in it and nobody has marked, see :func:`with_pseudo_labels`.

        Args:
            batch: the mapper's samples, of one expert.

        Returns:
            The samples with the findings added to "instances"; their mean numbers per image are logged as
            "teacher/num_lesions" and "teacher/num_uncertain". Or the batch itself, if its dataset is fully
            labelled or the teacher has not yet followed the student for ``start_iter`` steps.
        """
        expert = batch[0]["expert"]
        if expert not in self.experts or self.n_averaged <= self.start_iter:
            return batch
        labelled, new = [], []
        for sample, found in zip(batch, self.module(batch), strict=True):
            detections = found["experts"][expert].to("cpu")
            detections = detections[detections.scores >= self.uncertain_score]
            detections = unknown(detections, sample["instances"], self.iou)
            is_lesion = detections.scores >= self.lesion_score
            if self.bank is not None:
                is_lesion[is_lesion.clone()] = self._persists(sample, detections[is_lesion])
            targets = with_pseudo_labels(sample["instances"], detections, is_lesion)
            labelled.append({**sample, "instances": targets})
            new.append(targets.gt_status[len(sample["instances"]) :])
        storage, statuses = get_event_storage(), torch.cat(new)
        for name, status in (("lesions", BoxStatus.LESION), ("uncertain", BoxStatus.UNCERTAIN)):
            storage.put_scalar(f"teacher/num_{name}", (statuses == status).sum().item() / len(batch))
        return labelled

    def _persists(self, sample: dict, detections: Instances) -> Tensor:
        """(n,) whether each detection is found for long enough; the visit will be remembered."""
        visit = Visit.of(sample, detections.pred_boxes.tensor)
        self._new_visits.append(visit)
        return torch.from_numpy(self.bank.visits(visit) >= self.visits)

    def remember(self) -> None:
        """Take the last step's predictions, of all ranks, into the bank. Every rank has to call this."""
        if self.bank is not None:
            self.bank.add(itertools.chain(*comm.all_gather(self._new_visits)))
            self._new_visits = []


def unknown(detections: Instances, targets: Instances, iou: float) -> Instances:
    """Select the detections that overlap no target.

    Args:
        detections: with ``pred_boxes``, in the targets' image.
        targets: of a sample, as the mapper gives them.
        iou: with a target, or share of the detection inside it, from which on a detection overlaps it.
    """
    detections = detections[detections.pred_boxes.nonempty(SMALLEST)]
    return detections[~overlaps_any(detections.pred_boxes, targets.gt_boxes, iou)]


def with_pseudo_labels(targets: Instances, new: Instances, is_lesion: Tensor) -> Instances:
    """Join targets and new detections, as lesions or uncertain regions.

    Args:
        targets: of a sample, as the mapper gives them.
        new: n detections with ``pred_boxes`` and ``scores``, in the same image.
        is_lesion: (n,) which of them are lesions, with their scores as ``gt_weight``; the others are uncertain
            regions.

    Returns:
        With the fields of the targets and ``gt_weight``; a new box has no mark, and no tag.
    """
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
