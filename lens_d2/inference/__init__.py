"""Detection in whole volumes, from slices to 3D boxes in the frame of the file."""

from .linking import LINKER_REGISTRY, OverlapLinker
from .tracker import BoxTracker

__all__ = ["LINKER_REGISTRY", "BoxTracker", "OverlapLinker"]
