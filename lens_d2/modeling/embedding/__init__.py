"""Lesion embedding, in which lesions that are alike lie close together (LENS, Section V-B)."""

from .embedder import LesionEmbedder, build_embed, load_lesanet
from .lesanet import LesaNet, LesionOutput

__all__ = ["LesaNet", "LesionEmbedder", "LesionOutput", "build_embed", "load_lesanet"]
