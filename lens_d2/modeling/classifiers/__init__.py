"""Networks that judge detections by the patch around them."""

from .build import CLASSIFIER_LOSS_REGISTRY, CLASSIFIER_REGISTRY, build_classifier, build_loss
from .fpr3d import FPR3D
from .global_local import GlobalLocalClassifier
from .mlc3d import MLC3D
from .resnet import ResNet2D, ResNet3D, load_resnet18_weights

__all__ = [
    "CLASSIFIER_LOSS_REGISTRY",
    "CLASSIFIER_REGISTRY",
    "FPR3D",
    "GlobalLocalClassifier",
    "MLC3D",
    "ResNet2D",
    "ResNet3D",
    "build_classifier",
    "build_loss",
    "load_resnet18_weights",
]
