"""The registry of strategies: a file in the folder, or a class, is all that a new one needs."""

import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from unittest import mock

import numpy as np
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.mining.lens import strategies
from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import STRATEGIES, Finding

FAR = np.array([60.0, 60, 80, 80])


OWN_STRATEGY = """
from .strategy import STRATEGIES, Strategy

@STRATEGIES.register()
class OwnStrategy(Strategy):
    pass
"""


def test_a_file_in_the_folder_is_all_that_a_strategy_needs(tmp_path):
    """Tried with a copy of the package, which has a registry of its own."""
    folder = shutil.copytree(Path(strategies.__file__).parent, tmp_path / "strategies")
    (folder / "own_strategy.py").write_text(OWN_STRATEGY)
    spec = spec_from_file_location("lens_d2.mining.lens.copied_strategies", folder / "__init__.py")
    with mock.patch.dict(sys.modules):
        sys.modules[spec.name] = copied = module_from_spec(spec)
        spec.loader.exec_module(copied)
    assert "OwnStrategy" in copied.STRATEGIES and "CrossSlice" in copied.STRATEGIES
    assert "OwnStrategy" not in STRATEGIES


def test_a_fourth_strategy_is_one_class():
    class Everything:
        def __call__(self, patient):
            return [
                Finding(
                    v.record["volume"],
                    f"{v.record['volume']}/all",
                    v.detections["luna"].boxes_of(0),
                    "hard_negative",
                )
                for v in patient
            ]

    STRATEGIES._do_register("Everything", Everything)
    try:
        strategy = STRATEGIES.get("Everything")()
        rows = mine_patient(
            patient((record(), proposals(luna=tracklets((4, FAR, [0.1]))))), {"Everything": strategy}, 0.5
        )
        assert [(row.strategy, row.status) for row in rows] == [("Everything", "hard_negative")]
    finally:
        del STRATEGIES._obj_map["Everything"]
