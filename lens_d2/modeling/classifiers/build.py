"""The registry of the networks that judge detections by a patch around them."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

CLASSIFIER_REGISTRY = Registry("CLASSIFIER")
CLASSIFIER_REGISTRY.__doc__ = """
Classifiers of detections. ``CLASSIFIER_REGISTRY.get(name)(keys)``, with a node of keys as ``MODEL.FPR`` and
``MODEL.LPC`` are, gives an ``nn.Module`` with

- ``grid``, the :class:`lens_d2.data.patches.PatchGrid` of the patches that it takes;
- ``forward(patches, boxes)``: (n, 1, D, H, W) HU, cut by the grid, and (n, 6) boxes x1, y1, z1, x2, y2, z2 in
  patch coordinates -> (n,) logits of being a lesion. In training it may be (n, k), each of which is trained;
- ``load_initial_weights(source)``: starts it from a ResNet-18, see :func:`lens_d2.modeling.pretrained.
  load_initial_weights`.
"""


def build_classifier(cfg: CfgNode, role: str = "FPR") -> nn.Module:
    """The classifier ``MODEL.<role>.NAME``, on MODEL.DEVICE; the role is "FPR" (LENS) or "LPC" (Harvester)."""
    keys = cfg.MODEL[role]
    return CLASSIFIER_REGISTRY.get(keys.NAME)(keys).to(cfg.MODEL.DEVICE)
