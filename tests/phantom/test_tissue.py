"""CT numbers: phases, injections, patients."""

import numpy as np
import pytest

from lens_d2.phantom.tissue import PHASES, TISSUES, Tissues


def test_phases_and_the_injection_make_the_enhancement():
    average = dict.fromkeys(TISSUES, 0.0)
    for number, phase in enumerate(PHASES):
        assert Tissues(phase, 1.0, average).mean("liver") == TISSUES["liver"][0][number]
    weak = Tissues("venous", 0.5, average)
    assert weak.mean("liver") == (57 + 108) / 2 and weak.mean("air") == -1000 and weak.grain("muscle") == 9
    assert Tissues("none", 1.0, {**average, "fat": 2.0}).mean("fat") == -105 + 2 * 5


def test_marrow_falls_with_age():
    young, old = (Tissues.patient_deviates(np.random.default_rng(0), age) for age in (30, 80))
    spread = TISSUES["marrow"][1]
    assert (young["marrow"] - old["marrow"]) * spread == pytest.approx(50 * 2.5)
    assert {name for name in TISSUES if young[name] != old[name]} == {"marrow"}
