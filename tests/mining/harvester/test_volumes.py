"""V_M, V_H and V_H-test as a harvest has them."""

import numpy as np
import pytest
from helpers.harvest_cohort import PARTIAL, VERIFIED, harvest_cfg, register

from lens_d2.data.ledger.merge import register_ledger
from lens_d2.data.ledger.table import LedgerRow, to_table, write_ledger
from lens_d2.data.loader import load_training_records
from lens_d2.io.errors import DataError
from lens_d2.mining.harvester.rounds import Rules, known_proposals
from lens_d2.mining.harvester.volumes import HarvestVolumes, check_settings
from lens_d2.structures.detections import VolumeDetections


@pytest.fixture
def sets(tmp_path):
    return register(tmp_path / "data")


def test_a_sub_volume_of_v_m_is_not_harvested(sets, tmp_path):
    cfg = harvest_cfg(tmp_path, tmp_path, "HARVEST.DATASETS", (PARTIAL, VERIFIED))
    with pytest.raises(DataError, match=f"it is in HARVEST.VERIFIED \\({VERIFIED}\\)"):
        HarvestVolumes(cfg)


def test_a_verified_set_of_ones_own(sets, tmp_path):
    """What a radiologist has accepted in a sub-volume is a mark there: a proposal that hits it is P_M^R."""
    record = sets[VERIFIED][0]
    row = LedgerRow(
        "new@4", record["volume"], 4, 40.0, 40.0, 52.0, 52.0, "new", "CrossSlice", 1, 0.9, 0.1, "", "accepted"
    )
    refused = row._replace(id="other@4", lesion="other", x1=10.0, x2=22.0, status="rejected")
    write_ledger(tmp_path / "reviewed.parquet", [to_table([row, refused])])
    register_ledger("my_vm", tmp_path / "reviewed.parquet", VERIFIED, given=True)
    cfg = harvest_cfg(tmp_path, tmp_path, "HARVEST.VERIFIED", "my_vm", "DATASETS.TRAIN", ("my_vm", PARTIAL))
    mine = HarvestVolumes(cfg).verified[0]
    given = [(x["id"], "annotation") for x in record["lesions"]]
    expected = [*given, ("new", "accepted"), ("other", "hard_negative")]
    assert [(x["id"], x["status"]) for x in mine["lesions"]] == expected
    box = np.array([[40.0, 40, 3, 52, 52, 5]])
    slice_boxes = np.array([[z, 40.0, 40, 52, 52, 0.8] for z in (3, 4, 5)])
    found = VolumeDetections(box, np.array([0.8]), slice_boxes, np.zeros(3, dtype=np.int64))
    lesions, others = known_proposals([mine], lambda _: found, Rules())
    assert len(lesions[mine["volume"]]) == 1 and len(others[mine["volume"]]) == 0


def test_a_share_of_the_patients(sets, tmp_path):
    cfg = harvest_cfg(tmp_path, tmp_path, "DATASETS.SHARES", ((VERIFIED, 0.5),))
    part = HarvestVolumes(cfg).verified
    assert len({r["patient"] for r in part}) == 1 < len({r["patient"] for r in sets[VERIFIED]})
    names = {r["volume"] for r in load_training_records(cfg, (VERIFIED,))}
    assert names == {r["volume"] for r in part}


def test_no_threshold_exceeds_a_precision_of_one(sets, tmp_path):
    cfg = harvest_cfg(tmp_path, tmp_path, "HARVEST.PRECISION", 1.0)
    with pytest.raises(DataError, match="HARVEST.PRECISION: 1.0, which no threshold exceeds"):
        check_settings(cfg, HarvestVolumes(cfg))


def test_a_patient_is_in_one_fold(sets, tmp_path):
    volumes = HarvestVolumes(harvest_cfg(tmp_path, tmp_path))
    one, two = (r["volume"] for r in sets[VERIFIED])
    assert volumes.folds(2) == {one: 0, two: 1} and volumes.folds(0) == {}
    volumes.verified[1]["patient"] = volumes.verified[0]["patient"]
    assert set(volumes.folds(2).values()) == {0}
