"""The networks, registered under their names in Detectron2's registries."""

from .afp import AFP
from .backbone import DenseNet25D, build_densenet25d_backbone
from .classifiers import CLASSIFIER_REGISTRY, FPR3D, build_classifier
from .meta_arch import FUSED, LENS
from .roi_heads import LENSROIHeads

__all__ = [
    "AFP",
    "CLASSIFIER_REGISTRY",
    "FPR3D",
    "FUSED",
    "LENS",
    "DenseNet25D",
    "LENSROIHeads",
    "build_classifier",
    "build_densenet25d_backbone",
]
