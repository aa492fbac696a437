"""Separate models whose boxes are fused at inference (LENS, Table IV, "Separate models")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lens_d2.data.cache import CachedVolume
from lens_d2.inference.volume import VolumeDetector, VolumeInference
from lens_d2.modeling.meta_arch import fuse_experts
from lens_d2.structures.detections import FUSED, VolumeDetections


class Ensemble(VolumeDetector):
    """Whole-volume inference with several models: their boxes on a slice are fused as one model's experts are."""

    def __init__(self, members: Sequence[VolumeInference], nms_thresh: float, topk: int):
        """
        Args:
            members: one a model, of the same slices; the first one's cache and linker count.
            nms_thresh: IoU of the NMS among the models' boxes.
            topk: boxes of a slice that are kept at most.
        """
        super().__init__(members[0].cache)
        self.members = nn.ModuleList(members)
        self.nms_thresh, self.topk = nms_thresh, topk

    def detect(self, volume: CachedVolume) -> dict[str, VolumeDetections]:
        """Fused 3D detections of one volume, in the volume frame."""
        found = [member.detect_slices(volume)[FUSED] for member in self.members]
        of_slices = [dict(enumerate(own)) for own in zip(*found, strict=True)]
        slices = fuse_experts(of_slices, self.nms_thresh, self.topk)
        return {FUSED: self.members[0].link(slices, volume)}
