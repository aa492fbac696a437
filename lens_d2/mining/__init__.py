"""Finding missing annotations in partially labelled datasets: LENS's strategies, Lesion-Harvester's rounds.

proposals (shards) -> strategies, patient by patient, or rounds -> ledger -> back into the dataset records
"""

from ..data.ledger.counts import count_training_data, format_counts, strategies_of
from ..data.ledger.merge import apply_ledger, ledger_records, register_ledger
from ..data.ledger.table import LedgerRow, check_ledger, read_ledger, write_ledger
from .shards import ShardStore

__all__ = [
    "LedgerRow",
    "ShardStore",
    "apply_ledger",
    "check_ledger",
    "count_training_data",
    "format_counts",
    "ledger_records",
    "read_ledger",
    "register_ledger",
    "strategies_of",
    "write_ledger",
]
