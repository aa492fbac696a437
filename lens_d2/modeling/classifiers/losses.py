"""What a classifier of detections is trained on, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

CLASSIFIER_LOSS_REGISTRY = Registry("CLASSIFIER_LOSS")
CLASSIFIER_LOSS_REGISTRY.__doc__ = """
Losses of classifiers. ``CLASSIFIER_LOSS_REGISTRY.get(name)(keys)``, keys being the classifier's, gives a function
of logits and targets in [0, 1], of one shape, whose value is the mean.
"""


@CLASSIFIER_LOSS_REGISTRY.register()
def focal(keys: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """The focal loss (LENS, Section IV-D)."""
    return partial(sigmoid_focal_loss, alpha=keys.FOCAL_ALPHA, gamma=keys.FOCAL_GAMMA, reduction="mean")


@CLASSIFIER_LOSS_REGISTRY.register()
def cross_entropy(keys: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """The cross-entropy (Lesion-Harvester, Section III-C)."""
    return binary_cross_entropy_with_logits


def build_loss(keys: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """``keys.LOSS``; ``keys`` are those of a classifier, as MODEL.FPR."""
    return CLASSIFIER_LOSS_REGISTRY.get(keys.LOSS)(keys)
