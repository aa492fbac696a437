"""Registries of the networks that judge detections by a patch around them, and of their losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

CLASSIFIER_REGISTRY = Registry("CLASSIFIER")
CLASSIFIER_REGISTRY.__doc__ = """
Classifiers of detections. ``CLASSIFIER_REGISTRY.get(name)(keys)``, with keys as ``MODEL.FPR`` and ``MODEL.LPC``
have them, gives an ``nn.Module`` with

- ``grid``, the :class:`lens_d2.data.patches.PatchGrid` of the patches that it takes;
- ``forward(patches, boxes)``: (n, 1, D, H, W) HU, cut by the grid, and (n, 6) boxes x1, y1, z1, x2, y2, z2 in
  patch coordinates -> (n,) logits of being a lesion. In training it may be (n, k), each of which is trained;
- ``load_initial_weights(source)``: starts it from a ResNet-18, see :func:`lens_d2.modeling.pretrained.
  load_initial_weights`.
"""

CLASSIFIER_LOSS_REGISTRY = Registry("CLASSIFIER_LOSS")
CLASSIFIER_LOSS_REGISTRY.__doc__ = """
Losses of classifiers. ``CLASSIFIER_LOSS_REGISTRY.get(name)(keys)``, keys being the classifier's, gives a function
of logits and targets in [0, 1], of one shape, whose value is the mean.
"""


@CLASSIFIER_LOSS_REGISTRY.register()
def focal(keys: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """Focal loss (LENS, Section IV-D)."""
    return partial(sigmoid_focal_loss, alpha=keys.FOCAL_ALPHA, gamma=keys.FOCAL_GAMMA, reduction="mean")


@CLASSIFIER_LOSS_REGISTRY.register()
def cross_entropy(keys: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy (Lesion-Harvester, Section III-C)."""
    return binary_cross_entropy_with_logits


def build_loss(keys: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the loss ``keys.LOSS``; ``keys`` are those of a classifier, as ``MODEL.FPR``."""
    return CLASSIFIER_LOSS_REGISTRY.get(keys.LOSS)(keys)


def build_classifier(cfg: CfgNode, role: str = "FPR") -> nn.Module:
    """Build the classifier ``MODEL.<role>.NAME``; the role is "FPR" (LENS) or "LPC" (Lesion-Harvester)."""
    keys = cfg.MODEL[role]
    return CLASSIFIER_REGISTRY.get(keys.NAME)(keys).to(cfg.MODEL.DEVICE)
