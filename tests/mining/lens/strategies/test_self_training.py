"""Self-training on hand-made proposals: which tracklets are lesions, which uncertain regions."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.config import load_config
from lens_d2.io.errors import DataError
from lens_d2.mining.calibration import Calibration, Verified
from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import SelfTraining
from lens_d2.mining.lens.strategies.self_training import missing_by_stratum

MARK, SMALL, LARGE = (np.array(x, dtype=float) for x in ([70, 70, 90, 90], [10, 10, 20, 20], [40, 10, 70, 40]))
VOLUMES = 24  # of which every second one is completely annotated


def found(*lesions, luna=0.9):
    """Tracklets of (slice, box, score of their own expert); luna agrees with small ones, lits with large ones."""
    runs = [(z - 1, box, [score - 0.1, score, score - 0.1]) for z, box, score in lesions]
    result = tracklets(*runs)
    sides = result.boxes[:, 3] - result.boxes[:, 0]
    small = sides < 16
    result.expert_scores = np.column_stack([result.scores, np.where(small, luna, 0.1), np.where(small, 0.1, 0.5)])
    return proposals(deeplesion=result)


def cohort():
    """Each sub-volume has a mark, and a small and a large lesion without one; every fourth has no large one."""
    everything = {}
    for number in range(VOLUMES):
        lesions = [(4, SMALL, 0.8)] + ([(12, LARGE, 0.8)] if number % 4 else []) + [(8, MARK, 0.9)]
        junk = [(16, SMALL + 5, 0.3), (16, LARGE + 20, 0.3)]
        series = f"{number:06d}_01_01"
        marked, complete = record(series, lesions=[(8, MARK)]), record(series, lesions=[x[:2] for x in lesions])
        everything[marked["volume"]] = marked, complete, found(*lesions, *junk)
    return everything


@pytest.fixture
def volumes():
    everything = cohort()
    complete = [each[1] for i, each in enumerate(everything.values()) if i % 2]
    DatasetCatalog.register("own_vm", lambda: complete)
    yield everything
    DatasetCatalog.remove("own_vm")


def trained(volumes, **kw):
    strategy = SelfTraining(calibration=Calibration("own_vm", (16.0,), min_lesions=5), **{"quota": 1.0, **kw})
    records = [each[0] for each in volumes.values()]
    learnt = strategy.learn(records, lambda record: volumes[record["volume"]][2])
    strategy.use(json.loads(json.dumps(learnt)))
    return strategy


def mined(strategy, volumes):
    rows = []
    for marked, _, proposed in volumes.values():
        rows += mine_patient(patient((marked, proposed)), {"SelfTraining": strategy}, 0.5)
    return rows


def test_lesions_on_their_best_slice(volumes):
    rows = mined(trained(volumes, precision=0.8, quota=2.0), volumes)
    chosen = [row for row in rows if row.status == "annotation"]
    assert {(row.slice, row.x1) for row in chosen} == {(4, 10.0), (12, 40.0)}
    assert len(chosen) == VOLUMES + VOLUMES * 3 // 4  # all of them, and nothing else
    assert {row.expert for row in chosen if row.x1 == 10} == {"luna"}
    assert {row.expert for row in chosen if row.x1 == 40} == {"lits"}
    assert all(0.85 < row.precision < 1 for row in chosen)
    assert {round(row.disagreement, 6) for row in chosen} == {0.1, 0.3}
    beside = {(row.slice, row.status) for row in rows if row.lesion == chosen[0].lesion}
    assert beside == {(3, "uncertain"), (4, "annotation"), (5, "uncertain")}


def test_too_high_a_precision_leaves_uncertain_regions(volumes):
    rows = mined(trained(volumes, precision=0.99), volumes)
    assert {row.status for row in rows} == {"uncertain"} and {row.slice for row in rows} == {3, 4, 5, 11, 12, 13}
    assert mined(trained(volumes, precision=0.99, uncertain_precision=1.0), volumes) == []


def test_a_quota_thins_out_by_the_seed(volumes):
    def names(**kw):
        rows = mined(trained(volumes, precision=0.8, **kw), volumes)
        chosen = {row.lesion for row in rows if row.status == "annotation"}
        assert {row.lesion for row in rows} > chosen  # the others are uncertain regions
        return chosen

    half, again, other = names(quota=0.5), names(quota=0.5), names(quota=0.5, seed=1)
    assert half == again != other and 10 <= len(half) <= 32
    assert names(quota=0.0) == set()


def test_the_quota_follows_what_is_missing():
    """Of two small and one large lesion, in half of the sub-volumes; luna has found one, none the other."""
    complete = [record("000001_01_01", lesions=[(4, SMALL), (5, SMALL + 20), (12, LARGE), (8, MARK)])]
    verified = Verified(complete, [record("000001_01_01", lesions=[(8, MARK)]), record("000002_01_01")])
    found = [("below 16 mm", "luna"), ("16 mm or more", "lits")]
    missing = missing_by_stratum(verified, (16.0,), found, ["luna", "lits"], 2.0)
    assert missing["below 16 mm", "luna"] == pytest.approx(4 * 2 / 3)
    assert missing["below 16 mm", "lits"] == pytest.approx(4 / 3)
    assert sum(missing.values()) == pytest.approx(6)


def test_it_needs_a_completely_annotated_dataset():
    with pytest.raises(DataError, match="MINING.CALIBRATION.DATASET: empty: SelfTraining needs"):
        SelfTraining(load_config("phantom/lens_full.yaml"))
