"""Cross-slice box propagation (LENS, Section V-A)."""

from __future__ import annotations

from detectron2.config import configurable

from ....structures.boxes import match_best_first
from ....structures.detections import FUSED
from ....structures.known_boxes import tracklet_overlaps
from ....structures.status import BoxStatus
from .strategy import STRATEGIES, Finding, Patient, PatientVolume, Strategy


@STRATEGIES.register()
class CrossSlice(Strategy):
    """Follows an annotation from its key slice to the neighbouring ones.

    The tracklet whose box on the annotation's slice overlaps it most, with IoU > theta, is the same lesion: its
    boxes on other slices are missing annotations.
    """

    @configurable
    def __init__(self, *, group: str = FUSED, iou: float = 0.5):
        """
        Args:
            group: of the proposals, "fused" or an expert.
            iou: theta.
        """
        self.group, self.iou = group, iou

    @classmethod
    def from_config(cls, cfg):
        """Arguments of the constructor, from a config."""
        return {"group": cfg.MINING.PROPOSALS, "iou": cfg.MINING.IOU}

    def __call__(self, patient: Patient) -> list[Finding]:
        """Mine one patient; see :class:`Strategy`."""
        return [finding for volume in patient for finding in self._of_volume(volume)]

    def _of_volume(self, volume: PatientVolume) -> list[Finding]:
        known = volume.known.of_status(BoxStatus.LESION)
        found = volume.detections[self.group]
        opinions = volume.opinions(self.group)
        given = volume.annotations
        findings = []
        for tracklet, box in zip(*match_best_first(tracklet_overlaps(found, known), self.iou), strict=True):
            lesion = known.lesions[box]
            annotation = lesion if lesion in given else None  # one mined or accepted is no annotation
            boxes, opinion = found.boxes_of(tracklet), opinions.of(tracklet)
            findings.append(Finding(volume.record["volume"], lesion, boxes, annotation=annotation, **opinion))
        return findings
