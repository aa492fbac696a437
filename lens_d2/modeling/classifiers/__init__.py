"""Networks that judge detections by the patch around them."""

from .build import CLASSIFIER_REGISTRY, build_classifier
from .fpr3d import FPR3D
from .resnet3d import ResNet3D, load_inflated_weights

__all__ = ["CLASSIFIER_REGISTRY", "FPR3D", "ResNet3D", "build_classifier", "load_inflated_weights"]
