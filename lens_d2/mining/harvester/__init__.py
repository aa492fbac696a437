"""Harvesting of missing lesions and hard negatives, round after round (Lesion-Harvester, Section III).

boxes on slices -> 3D proposals -> classifier -> lesions and hard negatives -> ledger -> the next round's training
"""

from .pool import HarvestedLesion, merge

__all__ = ["HarvestedLesion", "merge"]
