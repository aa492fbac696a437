"""Missing ground-truth mining, the first half of MGTM-SLLP (Wang et al., PRCV 2019; Lesion-Harvester, II-A).

The second half, slice-level label propagation, is :class:`CrossSlice` after it: it follows the given and the mined
boxes of the marked slices to their neighbours.
"""

from __future__ import annotations

import numpy as np
from detectron2.config import configurable

from ....structures.detections import FUSED
from ....structures.status import BoxStatus
from .strategy import STRATEGIES, Finding, PatientVolume, VolumeStrategy


@STRATEGIES.register()
class MissingGroundTruth(VolumeStrategy):
    """Mines lesions only on slices on which a lesion is known: by its mark, or by a strategy before this one.

    A tracklet with a high-scoring box on such a slice is a missing annotation if it is no known lesion and
    continues in the neighbouring slices, which artefacts and vessels cut across rarely do.
    """

    @configurable
    def __init__(self, *, group: str = FUSED, iou: float = 0.5, score_thresh: float = 0.5, min_slices: int = 3):
        """
        Args:
            group: of the proposals, "fused" or an expert.
            iou: theta: a tracklet with a larger key-slice IoU with a lesion or hard negative is known.
            score_thresh: of the box on that slice.
            min_slices: least number of slices on which the tracklet has a box.
        """
        self.group, self.iou = group, iou
        self.score_thresh, self.min_slices = score_thresh, min_slices

    @classmethod
    def from_config(cls, cfg):
        """Arguments of the constructor, from a config."""
        keys = cfg.MINING.MISSING_GROUND_TRUTH
        return {
            "group": cfg.MINING.PROPOSALS,
            "iou": cfg.MINING.IOU,
            "score_thresh": keys.SCORE_THRESH,
            "min_slices": keys.MIN_SLICES,
        }

    def of_volume(self, volume: PatientVolume) -> list[Finding]:
        """Mine one sub-volume; see :class:`VolumeStrategy`."""
        name, found = volume.record["volume"], volume.detections[self.group]
        unknown = volume.overlap_with_known(found, BoxStatus.LESION, BoxStatus.HARD_NEGATIVE) <= self.iou
        marked = volume.known.of_status(BoxStatus.LESION).slices
        continues = np.bincount(found.slice_detection, minlength=len(found)) >= self.min_slices
        wanted = np.isin(found.slice_boxes[:, 0], marked) & (found.slice_boxes[:, 5] > self.score_thresh)
        findings = []
        for tracklet in np.flatnonzero(unknown & continues):
            boxes = found.slice_boxes[wanted & (found.slice_detection == tracklet)]
            if len(boxes):
                findings.append(Finding(name, f"{name}/{self.group}-{tracklet}", boxes))
        return findings
