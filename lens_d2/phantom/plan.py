"""Plan of a cohort: its size, its hardness, and the source of all its random numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

STREAMS = {"deeplesion": 1, "luna": 2, "lits": 3, "nih_ln": 4, "sets": 5}


@dataclass(frozen=True)
class CohortPlan:
    """Size and hardness of a cohort.

    Attributes:
        train, val, test: patients of the universal dataset.
        luna, lits, nih_ln: scans of the single-type datasets (NIH-LN: half chests, half bellies).
        matrix: pixels a side, a multiple of 16; smaller matrices have larger pixels.
        hardness: 1 by default; more makes lesions fainter and increases the noise.
        missing_rate: sets how much interest a mark needs in the universal dataset: about this share of lesions
            gets none.
        seed: of everything.
        vm_share, vh_share: shares of the training sub-volumes that are completely annotated as V_M and as
            V_H-test (Lesion-Harvester, Section IV-A; 5.3% and 0.7% in the paper).
    """

    train: int
    val: int
    test: int
    luna: int
    lits: int
    nih_ln: int
    matrix: int = 208
    hardness: float = 1.0
    missing_rate: float = 0.75
    seed: int = 0
    vm_share: float = 0.07
    vh_share: float = 0.08

    def __post_init__(self):
        for name in ("train", "val", "test", "luna", "lits", "nih_ln"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        if self.matrix < 64 or self.matrix % 16:
            raise ValueError(f"matrix is {self.matrix}: a multiple of 16 from 64 on is needed")
        if not 0 <= self.missing_rate < 1:
            raise ValueError(f"missing_rate is {self.missing_rate}: it must be in [0, 1)")
        if not 0 <= self.hardness <= 2:
            raise ValueError(f"hardness is {self.hardness}: it must be in [0, 2]")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: it must not be negative")

    def rng(self, stream: str, *numbers: int) -> np.random.Generator:
        """Generator of one patient or scan, the same whatever else is drawn and in whatever order."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(STREAMS[stream], *numbers)))

    def to_dict(self) -> dict:
        """The fields, for JSON."""
        return asdict(self)

    def with_changes(self, **changes) -> CohortPlan:
        """Copy with the given fields replaced; None keeps a field."""
        return replace(self, **{key: value for key, value in changes.items() if value is not None})


SIZES = {
    "tiny": CohortPlan(train=4, val=1, test=2, luna=4, lits=4, nih_ln=4, matrix=96),
    "small": CohortPlan(train=20, val=4, test=9, luna=12, lits=12, nih_ln=12),
    "standard": CohortPlan(train=120, val=18, test=48, luna=60, lits=60, nih_ln=60),
    "study": CohortPlan(train=150, val=24, test=60, luna=60, lits=60, nih_ln=60),
    "large": CohortPlan(train=480, val=36, test=96, luna=160, lits=130, nih_ln=160),
}
DIFFICULTIES = {"easy": 0.5, "medium": 1.0, "hard": 1.4}
