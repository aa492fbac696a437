"""CT numbers of tissues by contrast phase, their spread between patients, and their grain.

The values are rounded from the sources listed in ``docs/phantom.md``, which also tabulates those measured in the
written cohort. Phases: "none" (unenhanced), "arterial" (late arterial), "venous" (portal venous).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PHASES = ("none", "arterial", "venous")

# tissue: (HU in each phase), standard deviation between patients, grain (texture within the tissue)
TISSUES: dict[str, tuple[tuple[float, float, float], float, float]] = {
    "air": ((-1000, -1000, -1000), 0, 0),
    "gas": ((-960, -960, -960), 10, 6),
    "lung": ((-855, -845, -840), 22, 16),
    "fat": ((-105, -104, -102), 5, 7),
    "visceral fat": ((-100, -98, -95), 6, 10),
    "skin": ((20, 25, 25), 8, 0),
    "muscle": ((47, 52, 57), 5, 9),
    "cartilage": ((100, 102, 104), 15, 10),
    "disc": ((85, 86, 88), 8, 5),
    "cortical bone": ((680, 680, 680), 90, 60),
    "marrow": ((150, 157, 167), 38, 28),
    "thecal sac": ((18, 20, 24), 4, 4),
    "blood": ((46, 300, 150), 8, 2),
    "venous blood": ((45, 90, 140), 8, 3),
    "portal blood": ((45, 125, 160), 8, 2),
    "pulmonary blood": ((46, 260, 145), 8, 2),
    "myocardium": ((46, 105, 108), 6, 4),
    "airway wall": ((20, 30, 35), 8, 0),
    "oesophagus": ((38, 55, 62), 6, 6),
    "liver": ((57, 72, 108), 7, 3),
    "spleen": ((48, 112, 119), 6, 3),
    "pancreas": ((42, 118, 97), 9, 14),
    "kidney cortex": ((32, 165, 178), 8, 3),
    "kidney medulla": ((31, 78, 165), 8, 4),
    "urine": ((4, 4, 8), 4, 1),
    "adrenal": ((28, 60, 66), 7, 3),
    "bile": ((8, 8, 9), 6, 1),
    "bowel wall": ((38, 68, 84), 8, 6),
    "bowel fluid": ((18, 18, 20), 9, 7),
    "oral contrast": ((240, 240, 240), 70, 18),
    "faeces": ((-20, -20, -20), 25, 110),
    "lymph node": ((40, 62, 82), 8, 4),
    "fibroglandular": ((28, 32, 38), 10, 12),
    "calcium": ((480, 500, 490), 150, 0),
    "gallstone": ((140, 140, 140), 90, 12),
    "scar": ((20, 25, 30), 20, 10),
    "couch": ((-350, -350, -350), 60, 0),
}

MEAN_AGE = 57
MARROW_BY_YEAR = -2.5  # HU


@dataclass(frozen=True)
class Tissues:
    """One patient's CT numbers in one scan.

    Attributes:
        phase: one of ``PHASES``.
        strength: of this injection, 1 on average; scales the enhancement over "none".
        deviates: tissue -> the patient's standard normal deviate.
    """

    phase: str
    strength: float
    deviates: dict[str, float]

    @staticmethod
    def patient_deviates(rng, age: int) -> dict[str, float]:
        """Draw deviates that share a third of their variance over all tissues; the marrow's falls with age."""
        shared = rng.normal()
        own = {name: rng.normal() for name in TISSUES}
        found = {name: float(np.clip(0.6 * shared + 0.8 * value, -2.2, 2.2)) for name, value in own.items()}
        spread = TISSUES["marrow"][1]
        found["marrow"] += MARROW_BY_YEAR * (age - MEAN_AGE) / spread
        return found

    def mean(self, name: str) -> float:
        """CT number of a tissue, HU."""
        values, spread, _ = TISSUES[name]
        plain, here = values[0], values[PHASES.index(self.phase)]
        return plain + spread * self.deviates[name] + (here - plain) * self.strength

    def grain(self, name: str) -> float:
        """Standard deviation of a tissue's texture, noise apart, HU."""
        return TISSUES[name][2]
