"""A tiny synthetic cohort, and the records that the datasets' readers find in one."""

from pathlib import Path

from lens_d2.data.datasets.catalog import Faults
from lens_d2.phantom.plan import CohortPlan

PLAN = CohortPlan(train=3, val=1, test=2, luna=2, lits=2, nih_ln=2, matrix=64, seed=3)


def records(module, split: str, root: Path) -> list[dict]:
    """Records of a split of a dataset, read without faults."""
    faults = Faults()
    found = module.read_split(split, root, faults)
    assert not faults
    return found
