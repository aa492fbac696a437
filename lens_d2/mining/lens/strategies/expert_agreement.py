"""Agreement of experts of different datasets. In neither paper; LENS's fusion (Section IV-C) builds on it."""

from __future__ import annotations

import numpy as np
from detectron2.config import configurable

from ....structures.status import BoxStatus
from .strategy import STRATEGIES, Finding, PatientVolume, VolumeStrategy


@STRATEGIES.register()
class ExpertAgreement(VolumeStrategy):
    """Takes tracklets that match no mark, and that the dataset's own expert and several others score highly.

    With ``MINING.CALIBRATION`` they have an estimated precision.
    """

    @configurable
    def __init__(self, *, score_thresh: float = 0.5, experts: int = 2, iou: float = 0.5):
        """
        Args:
            score_thresh: that the own expert and the others give at least.
            experts: number of others.
            iou: theta; a tracklet with a larger key-slice IoU with a known lesion or hard negative is known.
        """
        self.score_thresh, self.experts, self.iou = score_thresh, experts, iou

    @classmethod
    def from_config(cls, cfg):
        """Arguments of the constructor, from a config."""
        keys = cfg.MINING.EXPERT_AGREEMENT
        return {"score_thresh": keys.SCORE_THRESH, "experts": keys.EXPERTS, "iou": cfg.MINING.IOU}

    def of_volume(self, volume: PatientVolume) -> list[Finding]:
        """Mine one sub-volume; see :class:`VolumeStrategy`."""
        name, group = volume.record["volume"], volume.record["expert"]
        found, opinions = volume.detections[group], volume.opinions(group)
        if found.expert_scores is None:
            return []
        sure = (found.expert_scores >= self.score_thresh).sum(axis=1) > self.experts
        known = volume.overlap_with_known(found, BoxStatus.LESION, BoxStatus.HARD_NEGATIVE)
        rows = np.flatnonzero(sure & (opinions.own >= self.score_thresh) & (known <= self.iou))
        return [
            Finding(name, f"{name}/agreed-{row}", found.boxes_of(row), **opinions.of(row)) for row in rows.tolist()
        ]
