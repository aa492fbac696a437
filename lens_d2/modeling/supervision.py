"""Pieces of training that the proposal generators and the detection head share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from detectron2.structures import Boxes, Instances, pairwise_ioa, pairwise_iou
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..structures.status import BoxStatus


def of_status(targets: Instances, status: BoxStatus) -> Instances:
    """Select the boxes of one status; without a field ``gt_status``, as in Detectron2's data, all are lesions."""
    if targets.has("gt_status"):
        return targets[targets.gt_status == status]
    return targets if status == BoxStatus.LESION else targets[:0]


def weights_of(targets: Instances, device: torch.device) -> Tensor:
    """(n,) weights of the boxes as lesions, in classification; 1 without a field ``gt_weight``."""
    return targets.gt_weight if targets.has("gt_weight") else torch.ones(len(targets), device=device)


def with_hard_negatives_as_foreground(targets: Instances) -> Instances:
    """Copy of targets whose hard negatives are to be proposed as lesions are (ULDor, Tang et al.)."""
    if not targets.has("gt_status"):
        return targets
    status = targets.gt_status
    foreground = Instances(targets.image_size, **targets.get_fields())
    foreground.gt_status = status.masked_fill(status == BoxStatus.HARD_NEGATIVE, BoxStatus.LESION)
    return foreground


def overlaps_any(boxes: Boxes, regions: Boxes, least: float = 0.5) -> Tensor:
    """Find the boxes that overlap a region, such as an uncertain one.

    Args:
        boxes: n boxes, XYXY_ABS.
        regions: boxes of the regions.
        least: IoU with a region, or share of the box inside it, from which on the box overlaps it.

    Returns:
        (n,) bool
    """
    if not len(regions) or not len(boxes):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    overlapping = pairwise_iou(boxes, regions).amax(dim=1) >= least
    return overlapping | (pairwise_ioa(regions, boxes).amax(dim=0) >= least)


def log_counts(name: str, positive: Tensor, negative: Tensor) -> None:
    """Log the mean number of positive and negative pixels of an image, as Detectron2's RPN does for anchors.

    Args:
        name: prefix of the scalars ``<name>/num_pos_pixels`` and ``<name>/num_neg_pixels``.
        positive: (N, ...) bool, pixels of N images.
        negative: as ``positive``.
    """
    storage = get_event_storage()
    for kind, pixels in (("pos", positive), ("neg", negative)):
        storage.put_scalar(f"{name}/num_{kind}_pixels", pixels.sum().item() / len(pixels))


def global_normalizer(count: float, device: torch.device) -> float:
    """Divisor for a rank's sum of losses, with which the mean over the ranks is the global batch's loss.

    DDP averages gradients over the ranks; normalised on its own, a rank with few lesions would weigh each of them
    more. Every rank has to call this.

    Args:
        count: number of this rank's lesions, pixels or proposals, whichever the loss is averaged over.
        device: of the tensor that the ranks exchange.

    Returns:
        The global count, at least 1, divided by the number of ranks.
    """
    total = sum_over_ranks(torch.tensor(float(count), device=device))
    return max(float(total), 1.0) / comm.get_world_size()


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum of a number over the ranks, without gradients; every rank has to call this."""
    total = value.detach().clone()
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return total


def gather_over_ranks(values: Tensor) -> Tensor:
    """Gather the rows of all ranks; every rank has to call this, with the same number of rows.

    A loss of all rows is the same on every rank; a rank's own rows take its gradient, as many times as there are
    ranks, so that DDP's mean over the ranks is the gradient of that loss.
    """
    ranks = comm.get_world_size()
    if ranks == 1:
        return values
    rows = [torch.empty_like(values) for _ in range(ranks)]
    torch.distributed.all_gather(rows, values.detach().contiguous())
    if values.requires_grad:
        rows[comm.get_rank()] = rows[comm.get_rank()] + (values - values.detach()) * ranks
    return torch.cat(rows)


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw random numbers from a seed of their own, and leave the generators as they were.

    Args:
        seed: None: the generators are used as usual.
        device: whose generator is seeded beside the CPU's.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
