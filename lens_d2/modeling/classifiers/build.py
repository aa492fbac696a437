"""The registry of the networks that judge detections by a patch around them."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

CLASSIFIER_REGISTRY = Registry("CLASSIFIER")
CLASSIFIER_REGISTRY.__doc__ = """
Classifiers of detections. ``CLASSIFIER_REGISTRY.get(name)(cfg)`` gives an ``nn.Module`` with

- ``grid``, the :class:`lens_d2.data.patches.PatchGrid` of the patches that it takes;
- ``forward(patches, boxes)``: (n, 1, D, H, W) HU, cut by the grid, and (n, 6) boxes x1, y1, z1, x2, y2, z2 in
  patch coordinates -> (n,) logits of being a lesion.
"""


def build_classifier(cfg: CfgNode, name: str | None = None) -> nn.Module:
    """The classifier of false-positive reduction, ``MODEL.FPR.NAME``, or another by name; on MODEL.DEVICE."""
    return CLASSIFIER_REGISTRY.get(name or cfg.MODEL.FPR.NAME)(cfg).to(cfg.MODEL.DEVICE)
