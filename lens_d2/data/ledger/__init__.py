"""The ledger of mined boxes: its table, its merging into records, counts, and the verdicts of radiologists."""
