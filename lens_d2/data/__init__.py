"""Data: file formats, the volume cache, datasets, the ledger, training samples and their batches."""
