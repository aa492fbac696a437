"""The split of the datasets that come without one: 80% of the patients for training (LENS, Section VI-A)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

TRAINING_PART = 0.8
SEED = 2020


def split_of(patients: Iterable[str], seed: int = SEED) -> dict[str, str]:
    """``{patient: "train" | "val"}``, at random, the same on every machine.

    Patients are put in order of a hash of their name, and the first fifth validates. The parts are exact to a
    patient for any number of them, and where patients are added, only those at the border between the two parts
    can change sides. A split is therefore final when the dataset is complete.

    Args:
        patients: names; one patient's scans share one, and so are on one side.
        seed: another seed, another split.
    """
    ranked = sorted(set(patients), key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest())
    validating = round(len(ranked) * (1 - TRAINING_PART))
    return {patient: "val" if rank < validating else "train" for rank, patient in enumerate(ranked)}
