"""The networks, registered under their names in Detectron2's registries."""

from .afp import AFP
from .backbone import DenseNet25D, build_densenet25d_backbone
from .centernet import CenterNet
from .classifiers import CLASSIFIER_REGISTRY, FPR3D, build_classifier
from .fcos import FCOS
from .gating import GatedROIHeads
from .meta_arch import CECN, LENS
from .mulan import MULANROIHeads
from .roi_heads import LENSROIHeads
from .rpn import LENSRPN

__all__ = [
    "AFP",
    "CECN",
    "CLASSIFIER_REGISTRY",
    "FCOS",
    "FPR3D",
    "LENS",
    "CenterNet",
    "DenseNet25D",
    "GatedROIHeads",
    "LENSRPN",
    "LENSROIHeads",
    "MULANROIHeads",
    "build_classifier",
    "build_densenet25d_backbone",
]
