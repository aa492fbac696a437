"""Harvesting of missing lesions and hard negatives, round after round (Lesion-Harvester, Section III).

boxes on slices -> 3D proposals -> classifier -> lesions and hard negatives -> ledger -> the next round's training
"""

from .pool import Harvested, merge

__all__ = ["Harvested", "merge"]
