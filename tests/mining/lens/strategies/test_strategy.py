"""The registry of strategies: a file in the folder, or a class, is all that a new one needs."""

import re
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from unittest import mock

import numpy as np
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.config import load_config
from lens_d2.data.datasets.catalog import import_readers
from lens_d2.mining.lens import strategies
from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import STRATEGIES, build_strategies

MARK, FAR = np.array([[10.0, 10, 30, 30], [60, 60, 80, 80]])


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


def test_the_strategy_of_the_docs(repo_root, tmp_path):
    """As docs/mining.md has it, in a file that DATASETS.READERS names."""
    page = (repo_root / "docs/mining.md").read_text()
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "STRATEGIES" in code]
    (tmp_path / "conspicuous.py").write_text(example)
    cfg = load_config(opts=["MINING.STRATEGIES", ("CrossSlice", "Conspicuous")])
    import_readers([tmp_path / "conspicuous.py"])
    try:
        built = build_strategies(cfg)
    finally:
        STRATEGIES._obj_map.pop("Conspicuous", None)
    sure_of_the_mark, sure_of_another, unsure = (4, MARK, [0.95]), (8, FAR, [0.95]), (12, FAR, [0.6])
    found = proposals(deeplesion=tracklets(sure_of_the_mark, sure_of_another, unsure))
    rows = mine_patient(patient((record(lesions=[(4, MARK)]), found)), built, 0.5)
    assert [(row.strategy, row.status, row.slice) for row in rows] == [("Conspicuous", "annotation", 8)]
