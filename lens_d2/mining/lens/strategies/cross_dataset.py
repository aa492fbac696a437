"""Cross-dataset lesion mining (LENS, Section V-C)."""

from __future__ import annotations

from detectron2.config import configurable
from detectron2.data import MetadataCatalog

from ....data.datasets.catalog import partially_labelled
from ....structures.status import BoxStatus
from .strategy import STRATEGIES, Finding, PatientVolume, VolumeStrategy


@STRATEGIES.register()
class CrossDataset(VolumeStrategy):
    """Finds suspicious regions by the experts of single-type datasets.

    A 2D box of such an expert with a score above sigma that overlaps no annotation, given or mined, is an
    uncertain region, which training ignores.
    """

    @configurable
    def __init__(self, *, experts: tuple[str, ...], score_thresh: float = 0.5):
        """
        Args:
            experts: of the single-type datasets.
            score_thresh: sigma.
        """
        self.experts, self.score_thresh = tuple(experts), score_thresh

    @classmethod
    def from_config(cls, cfg):
        """Arguments of the constructor, from a config."""
        trained = {MetadataCatalog.get(name).expert for name in cfg.DATASETS.TRAIN}
        trained -= {*partially_labelled(cfg.DATASETS.TRAIN).values()}  # the universal one, if it has V_M as well
        experts = cfg.MINING.CROSS_DATASET.EXPERTS or [name for name in cfg.MODEL.LENS.EXPERTS if name in trained]
        return {"experts": experts, "score_thresh": cfg.MINING.CROSS_DATASET.SCORE_THRESH}

    def of_volume(self, volume: PatientVolume) -> list[Finding]:
        """Mine one sub-volume; see :class:`VolumeStrategy`."""
        name, known = volume.record["volume"], volume.known.of_status(BoxStatus.LESION)
        findings = []
        for expert in self.experts:
            found, opinions = volume.detections[expert], volume.opinions(expert)
            sure = found.slice_boxes[:, 5] > self.score_thresh
            boxes, owners = found.slice_boxes[sure], found.slice_detection[sure]
            free = known.largest_overlap(boxes) == 0
            boxes, owners = boxes[free], owners[free]
            for tracklet in sorted(set(owners.tolist())):
                lesion, opinion = f"{name}/{expert}-{tracklet}", opinions.of(tracklet)
                findings.append(Finding(name, lesion, boxes[owners == tracklet], "uncertain", **opinion))
        return findings
