"""CECN, the contextual-enhanced CenterNet (Lesion-Harvester, Section III-B)."""

from __future__ import annotations

from detectron2.modeling import META_ARCH_REGISTRY

from .meta_arch import LENS


@META_ARCH_REGISTRY.register()
class CECN(LENS):
    """The 2.5D DenseNet with CenterNet's head, and no second stage.

    ``INPUT.NUM_SLICES`` is 9; with 3 it is plain CenterNet, without 3D context. It trains, infers and mines as
    LENS does. With LENS's second stage, its head is ``MODEL.PROPOSAL_GENERATOR.NAME: CenterNet``.
    """

    @classmethod
    def from_config(cls, cfg):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.PROPOSAL_GENERATOR.NAME = "CenterNet"
        cfg.MODEL.LENS.ONE_STAGE = True
        return super().from_config(cfg)
