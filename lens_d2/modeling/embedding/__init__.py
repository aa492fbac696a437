"""The lesion embedding: which lesions are alike."""

from .embedder import LesionEmbedder, build_embed, load_lesanet
from .lesanet import LesaNet, LesionOutput

__all__ = ["LesaNet", "LesionEmbedder", "LesionOutput", "build_embed", "load_lesanet"]
