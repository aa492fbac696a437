"""The detector that prediction, evaluation, mining and the comparison with others call.

It is called with a list of records, and gives for each {"volume": name, "detections": {"fused" or expert:
:class:`VolumeDetections`}}; ``detect`` gives the detections of one volume.
"""

from __future__ import annotations

from detectron2.config import CfgNode, configurable
from torch import nn

from ..data.cache import CachedVolume, VolumeCache, build_cache
from ..structures.detections import FUSED, VolumeDetections
from .rescoring import SCORE_COMBINATIONS, classify, load_classifier, rescore
from .volume import VolumeDetector, VolumeInference


class RescoredInference(VolumeDetector):
    """Whole-volume inference, and a classifier that scores its detections once more (LENS, Section IV-D)."""

    @configurable
    def __init__(
        self,
        inference: VolumeDetector,
        classifier: nn.Module,
        *,
        cache: VolumeCache,
        outputs: tuple[str, ...] = (FUSED,),
        batch_size: int = 32,
        combine: str = "mean",
    ):
        """
        Args:
            inference: whole-volume inference; ``detect`` gives {name: VolumeDetections} of a volume.
            classifier: of the CLASSIFIER registry, trained.
            cache: of the volumes.
            outputs: names of the detections that are scored again; the others are not changed.
            batch_size: detections that are classified together.
            combine: name in :data:`SCORE_COMBINATIONS`.

        Raises:
            ValueError: ``combine`` is none of these names.
        """
        super().__init__(cache)
        if combine not in SCORE_COMBINATIONS:
            raise ValueError(f"MODEL.FPR.COMBINE is {combine!r}: give one of {', '.join(SCORE_COMBINATIONS)}")
        self.combine = SCORE_COMBINATIONS[combine]
        self.inference, self.classifier = inference, classifier
        self.outputs, self.batch_size = tuple(outputs), batch_size

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        inference: VolumeDetector,
        classifier: nn.Module | None = None,
        cache: VolumeCache | None = None,
    ):
        """Read ``MODEL.FPR``."""
        return {
            "inference": inference,
            "classifier": load_classifier(cfg) if classifier is None else classifier,
            "cache": build_cache(cfg) if cache is None else cache,
            "outputs": (cfg.MODEL.LENS.OUTPUT,),
            "batch_size": cfg.MODEL.FPR.BATCH_SIZE_TEST,
            "combine": cfg.MODEL.FPR.COMBINE,
        }

    def detect(self, volume: CachedVolume) -> dict[str, VolumeDetections]:
        """Rescored 3D detections of one volume, in the volume frame."""
        detections = dict(self.inference.detect(volume))
        for name in self.outputs:
            scores = classify(self.classifier, volume, detections[name].boxes, self.batch_size)
            detections[name] = rescore(detections[name], scores, self.combine)
        return detections


def build_inference(
    cfg: CfgNode,
    model: nn.Module,
    cache: VolumeCache | None = None,
    shows_progress: bool = False,
    refined: bool = True,
) -> VolumeDetector:
    """Whole-volume inference of a LENS, rescored if ``MODEL.FPR.WEIGHTS`` names a trained classifier.

    Args:
        cfg: of the model and the classifier.
        model: a LENS.
        cache: of the volumes; None: the one that ``cfg`` describes.
        shows_progress: whether a bar tells how far a volume is.
        refined: whether a classifier and ``TEST.SCALES`` are applied; False gives the detector's own scores at one
            scale, as mining uses them.

    Raises:
        DataError: the classifier's checkpoint cannot be loaded.
    """
    cache = build_cache(cfg) if cache is None else cache
    scales = {} if refined else {"scales": (1.0,)}
    inference = VolumeInference(cfg, model, cache=cache, shows_progress=shows_progress, **scales)
    return RescoredInference(cfg, inference, cache=cache) if refined and cfg.MODEL.FPR.WEIGHTS else inference


def absent_classifier(cfg: CfgNode) -> str:
    """A line that says that a config whose stages train a classifier names none; empty if nothing is amiss."""
    if cfg.MODEL.FPR.WEIGHTS or "fpr" not in cfg.STAGES:
        return ""
    return (
        "the config's stages train a classifier of false positives, and MODEL.FPR.WEIGHTS names none: scores are "
        "the detector's own; give fpr/model_final.pth of the run"
    )
