"""Detectors that tools/compare_peers.py trains and compares, one in each file, by name."""

from .faster_rcnn import FasterRCNN
from .lens import Lens
from .retinanet import RetinaNet

PEERS = {"LENS": Lens, "Faster R-CNN": FasterRCNN, "RetinaNet 3D": RetinaNet}

__all__ = ["PEERS", "FasterRCNN", "Lens", "RetinaNet"]
