"""Detection in whole volumes."""
