"""Finding missing annotations in partially labelled datasets: LENS's strategies, Lesion-Harvester's rounds.

proposals (shards) -> strategies, patient by patient, or rounds -> ledger (lens_d2.data.ledger) -> dataset records
"""

from .shards import ShardStore

__all__ = ["ShardStore"]
