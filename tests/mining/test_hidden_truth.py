"""Mining and review never open the hidden truth: only measuring does."""

import ast
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from helpers.mining_proposals import proposals, tracklets
from helpers.phantom_cohort import PLAN

from lens_d2.data.datasets import register_all
from lens_d2.data.datasets.catalog import default_root
from lens_d2.data.ledger.queue import QUEUES
from lens_d2.data.ledger.table import read_ledger
from lens_d2.data.ledger.verdicts import proposals_of
from lens_d2.mining.calibration import Calibration
from lens_d2.mining.lens.mine import mine
from lens_d2.mining.lens.strategies import CrossSlice, ExpertAgreement, SelfTraining
from lens_d2.phantom.cohort import write_cohort

TRAIN, VM = "phantom_deeplesion_train", "phantom_deeplesion_vm"


def test_no_module_names_it(repo_root):
    """The synthetic cohort writes it; nothing else in the package names it, or imports what reads it."""
    for path in (repo_root / "lens_d2").rglob("*.py"):
        if "phantom" in path.relative_to(repo_root / "lens_d2").parts:
            continue
        text = path.read_text()
        assert "hidden_truth" not in text, path
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(name.split(".")[0] in ("experiments", "tests") for name in names), path


@pytest.fixture
def opened():
    """The names of the files that Python opens while the test runs."""
    names, watching = [], [True]

    def hook(event, args):
        if watching and event == "open":
            names.append(str(args[0]))

    sys.addaudithook(hook)
    yield names
    watching.clear()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    write_cohort(PLAN, root / "phantom")
    before = default_root()
    register_all(root)
    yield root
    register_all(before)


class Shards:
    """Proposals of a detector that sees the marks and something beside each."""

    made_from = "marks"

    def read(self, record):
        boxes = [box for lesion in record["lesions"] for box in lesion["boxes"]]
        runs = [(z, [x1 + shift, y1, x2 + shift, y2], [0.9]) for z, x1, y1, x2, y2 in boxes for shift in (0, 6)]
        return proposals(deeplesion=tracklets(*runs), fused=tracklets(*runs))


def test_mining_and_the_queue_open_it_not(cohort, opened, tmp_path):
    records = DatasetCatalog.get(TRAIN)
    calibration = Calibration(VM, least_precision=0.0)
    strategies = {
        "CrossSlice": CrossSlice(),
        "SelfTraining": SelfTraining(calibration=calibration, precision=0.0, uncertain_precision=0.0),
        "ExpertAgreement": ExpertAgreement(score_thresh=0.1),
    }
    ledger = read_ledger(mine(records, Shards(), strategies, tmp_path, calibration=calibration))
    for order in QUEUES.values():
        assert order(proposals_of(ledger), records, calibration.sizes)
    assert {"DL_info.csv", "Revised-Train744.pkl"} <= {Path(name).name for name in opened}
    assert not [name for name in opened if "hidden_truth" in name]
