"""A tiny model proposes on a tiny dataset, which is mined: by one rank and by two, in one go and interrupted."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import launch
from detectron2.utils import comm
from helpers.kills import Killed, kill_at
from helpers.ledger_rows import row, table_of
from helpers.mining_cohort import mining_cfg, register_partly
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.data.ledger.merge import apply_ledger
from lens_d2.data.ledger.table import BOX as COLUMNS
from lens_d2.data.ledger.table import LedgerRow, read_ledger, to_table, write_ledger
from lens_d2.data.loader import load_training_records
from lens_d2.engine import LENSTrainer
from lens_d2.engine.launch import rank
from lens_d2.io.artifacts import ArtifactStore
from lens_d2.io.errors import DataError
from lens_d2.mining.calibration import Calibration
from lens_d2.mining.lens.mine import PatientStore, mine, mine_patient
from lens_d2.mining.lens.strategies import (
    CrossDataset,
    CrossSlice,
    ExpertAgreement,
    Finding,
    IntraPatient,
    MissingGroundTruth,
    Strategy,
    build_strategies,
)
from lens_d2.mining.proposals import LazyProposals, mined_records, open_shards, propose
from lens_d2.mining.shards import ShardStore
from lens_d2.structures.records import make_lesion

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the datasets and a full cache: what all runs share."""
    folder = tmp_path_factory.mktemp("partly")
    register_partly(folder / "data")
    return folder


def config(data, output, *opts):
    return mining_cfg(data, "OUTPUT_DIR", str(output), *opts)


def propose_and_mine(data, output):
    """All of a MiningHook's work with an untrained model, which differs from rank to rank."""
    torch.set_num_threads(1)
    register_partly(os.path.join(data, "data"))
    cfg = config(data, output)
    torch.manual_seed(2 + comm.get_rank())
    model = LENSTrainer.build_model(cfg)
    records = mined_records(cfg)
    shards = open_shards(cfg, model, output / "proposals")
    propose(records, shards)
    mine(records, shards, build_strategies(cfg), output / "mining", iou=cfg.MINING.IOU)
    return records, shards


@pytest.fixture(scope="module")
def mined(data, tmp_path_factory):
    """What one rank mines in one go."""
    output = tmp_path_factory.mktemp("mined")
    propose_and_mine(data, output)
    return output


def ledgers(output):
    return [(output / "mining" / name).read_bytes() for name in ("ledger.parquet", "ledger.csv")]


def test_every_strategy_finds_something(mined):
    ledger = read_ledger(mined / "mining/ledger.csv")
    assert set(ledger["strategy"]) == {"CrossSlice", "MatchBySize", "CrossDataset"}
    counts = json.loads((mined / "mining/mining.json").read_text())["counts"]
    assert counts[0]["boxes"] == counts[0]["lesions"] == 6
    assert counts[1]["boxes"] == 6 + (ledger["strategy"] == "CrossSlice").sum()


def test_two_ranks_mine_the_same_ledger_as_one(data, mined, tmp_path):
    launch(rank, 2, dist_url="auto", args=(propose_and_mine, data, tmp_path))
    assert ledgers(tmp_path) == ledgers(mined)


def is_shard(store, thing):
    return isinstance(store, ShardStore)


def is_patient(store, thing):
    return isinstance(store, PatientStore)


@pytest.mark.parametrize("kind, number, left", [(is_shard, 3, 2), (is_patient, 2, 1)])
def test_what_was_finished_is_not_done_again(data, mined, tmp_path, kind, number, left):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, ArtifactStore, "write", number, kind)
        propose_and_mine(data, tmp_path)
    assert not (tmp_path / "mining/ledger.parquet").exists()
    with pytest.MonkeyPatch.context() as patch:
        calls = kill_at(patch, ArtifactStore, "write", 99, kind)
        propose_and_mine(data, tmp_path)
    assert len(calls) == left
    assert ledgers(tmp_path) == ledgers(mined)


def test_a_second_run_does_nothing(data, mined, tmp_path):
    shutil.copytree(mined, tmp_path / "again")
    with pytest.MonkeyPatch.context() as patch:
        calls = kill_at(patch, ArtifactStore, "write", 99)
        propose_and_mine(data, tmp_path / "again")
    assert calls == []


def test_a_damaged_shard_is_made_again_while_mining(data, mined, tmp_path):
    (tmp_path / "proposals").mkdir()
    for path in (mined / "proposals").iterdir():
        (tmp_path / "proposals" / path.name).write_bytes(path.read_bytes()[:-7])
    records, shards = propose_and_mine(data, tmp_path)
    assert ledgers(tmp_path) == ledgers(mined)
    path = shards.path(records[0])
    path.write_bytes(path.read_bytes()[:300])
    fused = LazyProposals(records, shards)
    assert len(fused) == 4 and len(fused[records[0]["volume"]])
    alone = LazyProposals(records, shards, "lits")[records[0]["volume"]]
    np.testing.assert_array_equal(alone.boxes, shards.read(records[0])["lits"].boxes)
    assert shards.fault(records[0]) is None


def test_ignored_as_gt_trains_on_uncertain_regions(data, mined):

    ledger = str(mined / "mining/ledger.csv")
    statuses = []
    for switch in (False, True):
        cfg = config(data, mined, "DATASETS.LEDGER", ledger, "DATASETS.UNCERTAIN_AS_LESION", switch)
        records = load_training_records(cfg)
        statuses.append({x["status"] for r in records for x in r["lesions"]})
    assert statuses == [{"annotation", "mined", "uncertain"}, {"annotation", "mined"}]


def test_a_contradictory_ledger_stops_the_training(data, mined, tmp_path):
    path = tmp_path / "ledger.csv"
    lines = (mined / "mining/ledger.csv").read_text().splitlines()
    cells = lines[-1].split(",")  # a lesion's later rows would bear the fault of an earlier one
    cells[1] = '"elsewhere"'
    path.write_text("\n".join([*lines[:-1], ",".join(cells)]))
    cfg = config(data, tmp_path, "DATASETS.LEDGER", str(path))
    with pytest.raises(DataError, match=rf"{path}: row {len(lines) - 1} \(line {len(lines)}\): "):
        LENSTrainer.build_train_loader(cfg)


BOX, FAR = np.array([10.0, 10, 30, 30]), np.array([60.0, 60, 80, 80])
CROSS_DATASET = CrossDataset(experts=("luna", "lits"), score_thresh=0.5)


def test_strategies_run_in_order_and_know_what_came_before():
    """A lesion that cross-slice propagation has followed is no uncertain region on those slices."""
    found = proposals(fused=tracklets((4, BOX, [0.9] * 3)), luna=tracklets((4, BOX, [0.9] * 5)))
    strategies = {"CrossSlice": CrossSlice(), "CrossDataset": CROSS_DATASET}
    volume = (record(lesions=[(5, BOX)]), found)
    rows = mine_patient(patient(volume), strategies, 0.5)
    assert [(r.strategy, r.slice) for r in rows] == [
        ("CrossSlice", 4), ("CrossSlice", 6), ("CrossDataset", 7), ("CrossDataset", 8),
    ]  # fmt: skip
    rows = mine_patient(patient(volume), dict(reversed(strategies.items())), 0.5)
    assert [(r.strategy, r.slice) for r in rows] == [
        ("CrossDataset", 4), ("CrossDataset", 6), ("CrossDataset", 7), ("CrossDataset", 8),
        ("CrossSlice", 4), ("CrossSlice", 6),
    ]  # fmt: skip


def test_boxes_without_area_are_left_out():
    found = proposals(luna=tracklets((4, [10, 10, 10, 30], [0.9])))
    assert mine_patient(patient((record(), found)), {"CrossDataset": CROSS_DATASET}, 0.5) == []


def test_a_box_on_a_hard_negative_is_not_mined():
    found = proposals(fused=tracklets((4, FAR, [0.9] * 3)))
    rejected = make_lesion("v/rejected", [[5, *FAR]], status="hard_negative")
    marked = record()

    class Everything:
        def __call__(self, patient):
            (volume,) = patient
            return [Finding(volume.record["volume"], "new", volume.detections["fused"].slice_boxes)]

    rows = mine_patient(patient(({**marked, "lesions": [rejected]}, found)), {"Everything": Everything()}, 0.5)
    assert [row.slice for row in rows] == [4, 6]


@pytest.mark.parametrize(
    "strategy",
    [
        ExpertAgreement(),
        MissingGroundTruth(min_slices=2),
        IntraPatient(embed=lambda boxes: np.zeros((len(boxes), 2), np.float32)),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
@pytest.mark.parametrize("status", ["mined", "hard_negative"])
def test_a_decided_place_is_mined_on_no_slice(strategy, status):
    """Decided on slices 4 to 6, found on 4 to 7; the patient's other study has a lesion like it."""
    found = tracklets((4, FAR, [0.9] * 4))
    found.expert_scores = np.full((1, 3), 0.9)
    decided = make_lesion("v/judged", [[z, *FAR] for z in (4, 5, 6)], status=status)
    other = record("000001_02_01", lesions=[(5, FAR)])
    for lesions, is_new in (([decided], False), ([], True)):
        own = record(lesions=[(7, BOX)])
        own["lesions"] += lesions
        volumes = (own, proposals(fused=found, deeplesion=found)), (other, proposals())
        assert bool(mine_patient(patient(*volumes), {"one": strategy}, 0.5)) == is_new


def test_slices_of_which_a_radiologist_was_unsure_are_not_mined_again(tmp_path):
    """More slices of a marked lesion: the ledger of the next round has each once, and can be read."""
    found, marked = proposals(fused=tracklets((4, BOX, [0.9] * 4))), record(lesions=[(5, BOX)])
    first = mine_patient(patient((marked, found)), {"CrossSlice": CrossSlice()}, 0.5)
    judged = to_table(first).to_pandas().assign(status=["unsure", "annotation", "unsure"])
    (before,) = apply_ledger([marked], judged)
    second = mine_patient(patient((before, found)), {"CrossSlice": CrossSlice()}, 0.5, number=2)
    assert [row.slice for row in second] == []
    rows = [LedgerRow(*row) for row in judged.itertuples(index=False)]
    write_ledger(tmp_path / "ledger.parquet", [to_table([*rows, *second])])
    assert len(read_ledger(tmp_path / "ledger.parquet", [marked])) == 3


class Everywhere(Strategy):
    """Finds a box on each sub-volume's slice 5, at the same place."""

    def __call__(self, patient):
        places = [(x.record["volume"], np.array([[5, *FAR, 0.9]])) for x in patient]
        return [Finding(name, f"{name}/found-1", box) for name, box in places]


PLACE = dict(zip(COLUMNS, FAR, strict=True))


class NoShards:
    """Sub-volumes without proposals."""

    made_from = ""

    def read(self, record):
        return proposals()


class TestVerdictsAndPrecision:
    records = [record(f"00000{i}_01_01", lesions=[(3, BOX)]) for i in range(1, 5)]

    def mine(self, folder, **kw):
        path = mine(self.records, NoShards(), {"Everywhere": Everywhere()}, folder, **kw)
        return read_ledger(path).set_index("volume")

    def test_verdicts_are_known_and_go_along(self, tmp_path):
        first, second, third, _ = (r["volume"] for r in self.records)
        rows = [
            row(5, f"{name}/found-9/judged-1", name, annotation="", status=status, **PLACE)
            for name, status in ((first, "rejected"), (second, "accepted"), (third, "unsure"))
        ]
        table = self.mine(tmp_path, judged=table_of(*rows), number=2)
        assert table.loc[[first, second], "status"].tolist() == ["rejected", "accepted"]
        assert table.loc[third, "status"].tolist() == ["unsure", "annotation"]  # nothing is known of it
        assert table.loc[[first, second], "round"].tolist() == [1, 1] and set(table["round"]) == {1, 2}
        assert (tmp_path / "ledger.csv").read_text().count("judged-1") == 6  # id and lesion of three rows

    def test_another_verdict_is_mined_again(self, tmp_path):
        name = self.records[0]["volume"]
        assert set(self.mine(tmp_path)["status"]) == {"annotation"}
        judged = table_of(row(5, "one/judged-1", name, annotation="", status="rejected", **PLACE))
        assert self.mine(tmp_path, judged=judged).loc[name, "status"] == "rejected"

    def test_precision_from_the_completely_annotated_part(self, tmp_path):
        complete = [
            record("000001_01_01", lesions=[(3, BOX), (5, FAR)]),
            record("000002_01_01", lesions=[(3, BOX)]),
        ]
        DatasetCatalog.register("own_vm", lambda: complete)
        try:
            table = self.mine(tmp_path, calibration=Calibration("own_vm", least_precision=0.0))
        finally:
            DatasetCatalog.remove("own_vm")
        np.testing.assert_allclose(table["precision"], (1 + 1) / (2 + 2))
        assert np.isnan(self.mine(tmp_path / "without")["precision"]).all()
