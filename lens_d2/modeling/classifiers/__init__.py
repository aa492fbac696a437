"""Networks that judge detections by the patch around them."""

from .build import CLASSIFIER_REGISTRY, build_classifier
from .fpr3d import FPR3D
from .global_local import GlobalLocalClassifier
from .losses import CLASSIFIER_LOSS_REGISTRY, build_loss
from .mlc3d import MLC3D
from .resnet2d import ResNet2D, load_resnet18_weights
from .resnet3d import ResNet3D

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
