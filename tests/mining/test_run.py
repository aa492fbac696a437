"""A tiny model is run on a tiny dataset, and mined: by one rank and by two, in one go and interrupted."""

import inspect
import json
import os
import shutil

import pytest
import torch
from cohort import mining_cfg, register_partly
from detectron2.engine import launch
from detectron2.utils import comm

from lens_d2.engine import LENSTrainer, run_stages
from lens_d2.engine.launch import rank
from lens_d2.engine.network_trainer import NetworkTrainer
from lens_d2.errors import DataError
from lens_d2.mining import read_ledger
from lens_d2.mining.datasets import mined_records
from lens_d2.mining.mine import PatientStore, mine
from lens_d2.mining.propose import LazyProposals, open_shards, propose
from lens_d2.mining.shards import ShardStore
from lens_d2.mining.stored_tables import TableStore
from lens_d2.mining.strategies import build_strategies

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    """What no code catches."""


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
    register_partly(os.path.join(data, f"rank{comm.get_rank()}" if comm.get_world_size() > 1 else "data"))
    cfg = config(data, output)
    torch.manual_seed(2 + comm.get_rank())
    model = LENSTrainer.build_model(cfg)
    records = mined_records(cfg)
    for record in records:  # the same files, whoever wrote them
        record["file_name"] = os.path.join(data, "data", "deeplesion", os.path.basename(record["file_name"]))
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


def kill_at(monkeypatch, owner, name, number, when=lambda *args: True):
    """Let the number-th call of a method (of those that ``when`` holds for) be the last thing that happens."""
    original, calls = getattr(owner, name), []

    def method(*args, **kwargs):
        if when(*args):
            calls.append(args)
            if len(calls) == number:
                raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, staticmethod(method) if inspect.ismethod(original) else method)
    return calls


def is_shard(store, thing):
    return isinstance(store, ShardStore)


def is_patient(store, thing):
    return isinstance(store, PatientStore)


@pytest.mark.parametrize("kind, number, left", [(is_shard, 3, 2), (is_patient, 2, 1)])
def test_what_was_finished_is_not_done_again(data, mined, tmp_path, kind, number, left):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, TableStore, "write", number, kind)
        propose_and_mine(data, tmp_path)
    assert not (tmp_path / "mining/ledger.parquet").exists()
    with pytest.MonkeyPatch.context() as patch:
        calls = kill_at(patch, TableStore, "write", 99, kind)
        propose_and_mine(data, tmp_path)
    assert len(calls) == left
    assert ledgers(tmp_path) == ledgers(mined)


def test_a_second_run_does_nothing(data, mined, tmp_path):
    shutil.copytree(mined, tmp_path / "again")
    with pytest.MonkeyPatch.context() as patch:
        calls = kill_at(patch, TableStore, "write", 99)
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
    assert shards.fault(records[0]) is None


FULL = (
    "STAGES", ("train", "retrain", "fpr", "evaluate"), "DATASETS.TEST", ("blocks_luna",),
    "DATASETS.UNLABELED_SLICES", True, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 5,
    "MODEL.FPR.BACKBONE_WEIGHTS", "", "MODEL.FPR.WIDTH", 4, "MODEL.FPR.FC_DIM", 8,
    "MODEL.FPR.PATCH_SIZE", (4, 32, 32),
    "MODEL.FPR.PATCH_SPACING", (3.0, 4.0, 4.0), "MODEL.FPR.POOLER_RESOLUTION", (1, 2, 2),
    "MODEL.FPR.SOLVER.EPOCHS", 0, "MODEL.FPR.SOLVER.MAX_ITER", 4, "MODEL.FPR.SOLVER.IMS_PER_BATCH", 4,
    "MODEL.FPR.SOLVER.CHECKPOINT_PERIOD", 1, "MODEL.FPR.TP_IOU", 0.2, "MODEL.FPR.FP_IOU", 0.19,
    "MINING.STRATEGIES", ("CrossSlice", "MatchBySize"),
)  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    """A run of all stages in one go, and what it returned."""
    output = tmp_path_factory.mktemp("whole")
    return output, run_stages(config(data, output, *FULL))


def test_all_stages_leave_what_they_promise(whole_run):
    output, done = whole_run
    assert list(done) == ["train", "retrain", "fpr", "evaluate"]
    for stage in ("train", "retrain"):
        assert (output / stage / "model_final.pth").is_file()
        assert "average_sensitivity" in done[stage]["metrics"]["lens3d"]
    assert (output / "train/mining/ledger.csv").is_file()
    assert not (output / "retrain/mining").exists()
    assert (output / "fpr/model_final.pth").is_file()
    assert done["evaluate"]["classifier"] == str(output / "fpr/model_final.pth")
    assert json.loads((output / "evaluate/stage.json").read_text())["result"] == done["evaluate"]


def test_the_ledger_and_unlabelled_slices_are_for_retraining_alone(whole_run):
    output, _ = whole_run
    first, second = ((output / stage / "config.yaml").read_text() for stage in ("train", "retrain"))
    assert "UNLABELED_SLICES: false" in first and "UNLABELED_SLICES: true" in second
    assert "LEDGER: ''" in first and f"LEDGER: {output}/train/mining/ledger.parquet" in second


KILLS = {
    "while proposing": (TableStore, "write", 2, is_shard),
    "while mining": (TableStore, "write", 2, is_patient),
    "while evaluating": (LENSTrainer, "test", 1, None),
    "when retraining begins": (LENSTrainer, "run_step", 1, None),
    "while evaluating again": (LENSTrainer, "test", 1, None),
    "while proposing for the classifier": (TableStore, "write", 4, is_shard),
    "while training the classifier": (NetworkTrainer, "run_step", 3, None),
    "while evaluating with it": (LENSTrainer, "test", 1, None),
}


def test_killed_at_any_moment_it_goes_on(data, whole_run, tmp_path):
    """Killed again and again, a run ends with the same ledger, the same weights and the same numbers."""
    whole, expected = whole_run
    cfg = config(data, tmp_path, *FULL)
    steps = []
    for owner, name, number, when in KILLS.values():
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            calls = kill_at(patch, owner, name, number, *([when] if when else []))
            run_stages(cfg, resume=True)
        steps.append(len(calls))
    done = run_stages(cfg, resume=True)
    assert steps == [kill[2] for kill in KILLS.values()]
    assert [x.read_bytes() for x in sorted((tmp_path / "train/mining").glob("ledger.*"))] == [
        x.read_bytes() for x in sorted((whole / "train/mining").glob("ledger.*"))
    ]
    for stage in ("train", "retrain", "fpr"):
        ours, theirs = (
            torch.load(folder / stage / "model_final.pth", weights_only=True)["model"]
            for folder in (tmp_path, whole)
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), stage
        assert done[stage].get("metrics") == expected[stage].get("metrics")
    assert done["evaluate"]["metrics"] == expected["evaluate"]["metrics"]


def test_killed_in_the_middle_of_training_it_goes_on_from_a_checkpoint(data, tmp_path):
    cfg = config(data, tmp_path, *FULL, "STAGES", ("train",), "MINING.STRATEGIES", (), "DATASETS.TEST", ())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, LENSTrainer, "run_step", 4)
        run_stages(cfg)
    assert not (tmp_path / "train/stage.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        steps = kill_at(patch, LENSTrainer, "run_step", 99)
        assert run_stages(cfg, resume=True)["train"]["weights"] == str(tmp_path / "train/model_final.pth")
    assert len(steps) == 3  # of five, after the checkpoint of the second


def test_finished_stages_are_passed_over_and_a_new_run_begins_anew(data, whole_run, tmp_path):
    whole, expected = whole_run
    shutil.copytree(whole, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        calls = kill_at(patch, LENSTrainer, "run_step", 99)
        tests = kill_at(patch, LENSTrainer, "test", 99)
        assert run_stages(config(data, tmp_path / "run", *FULL), resume=True) == expected
        assert calls == tests == []
    (tmp_path / "run/retrain/stage.json").unlink()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, LENSTrainer, "run_step", 1)
        run_stages(config(data, tmp_path / "run", *FULL))
    assert not list((tmp_path / "run").glob("*/stage.json"))


def test_a_new_run_uses_nothing_of_an_old_one(data, whole_run, tmp_path):
    """Begun anew and killed, a run that is resumed trains every step again, in the later stages, too."""
    shutil.copytree(whole_run[0], tmp_path / "run")
    cfg = config(data, tmp_path / "run", *FULL, "DATASETS.TEST", (), "STAGES", ("train", "retrain", "fpr"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, LENSTrainer, "run_step", 1)
        run_stages(cfg)
    with pytest.MonkeyPatch.context() as patch:
        steps = kill_at(patch, LENSTrainer, "run_step", 99)
        steps_of_classifier = kill_at(patch, NetworkTrainer, "run_step", 99)
        run_stages(cfg, resume=True)
    assert (len(steps), len(steps_of_classifier)) == (2 * 5, 4)


@pytest.mark.parametrize("stage", ["train", "fpr"])
def test_killed_before_the_final_weights_are_written_it_writes_them(data, whole_run, tmp_path, stage):
    """The last thing that there is of the stage is its last checkpoint."""
    shutil.copytree(whole_run[0], tmp_path / "run")
    folder = tmp_path / "run" / stage
    (folder / "model_final.pth").rename(folder / "model_0000005.pth")
    (folder / "last_checkpoint").write_text("model_0000005.pth")
    (folder / "stage.json").unlink()
    stages = FULL[1][: FULL[1].index(stage) + 1]
    with pytest.MonkeyPatch.context() as patch:
        steps = [kill_at(patch, trainer, "run_step", 99) for trainer in (LENSTrainer, NetworkTrainer)]
        done = run_stages(config(data, tmp_path / "run", *FULL, "STAGES", stages), resume=True)
    assert steps == [[], []] and done[stage]["weights"] == str(folder / "model_final.pth")
    ours, theirs = (
        torch.load(path / "model_final.pth", weights_only=True)["model"] for path in (folder, whole_run[0] / stage)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_damaged_marker_is_no_finished_stage(data, whole_run, tmp_path, caplog):
    shutil.copytree(whole_run[0], tmp_path / "run")
    marker = tmp_path / "run/evaluate/stage.json"
    marker.write_text(marker.read_text()[:20])
    done = run_stages(config(data, tmp_path / "run", *FULL), resume=True)
    assert json.loads(marker.read_text())["result"] == done["evaluate"]
    assert done["evaluate"]["metrics"] == whole_run[1]["evaluate"]["metrics"]


def test_the_classifier_learns_with_a_harvested_ledger(data, tmp_path, monkeypatch):
    from lens_d2.engine import stages

    used = []
    monkeypatch.setattr(stages, "load_training_records", lambda cfg, cache: used.append(cfg.DATASETS.LEDGER) or [])
    for name in ("open_shards", "load_model", "propose", "train_fpr", "LazyProposals"):
        monkeypatch.setattr(stages, name, lambda *args: "")
    run = stages.Run(config(data, tmp_path), done={"harvest": {"ledger": "harvested.parquet", "weights": "a.pth"}})
    stages.fpr(run)
    run.done = {"train": {"weights": "a.pth"}}
    stages.fpr(run)
    assert used == ["harvested.parquet", ""]


def test_a_strategy_that_is_none_is_told_before_training(data, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyError, match="CrosSlice"):
        steps = kill_at(patch, LENSTrainer, "run_step", 99)
        run_stages(config(data, tmp_path, *FULL, "MINING.STRATEGIES", ("CrosSlice",)))
    assert steps == []


def test_nothing_to_mine_is_told_before_training(data, tmp_path):
    with pytest.raises(DataError, match="no dataset is partially labelled, and MINING.DATASETS names none"):
        run_stages(config(data, tmp_path, *FULL, "DATASETS.TRAIN", ("blocks_luna",)))


def test_a_stage_alone_needs_those_before_it(data, tmp_path):
    with pytest.raises(DataError, match="no ledger here: one of the stages train, harvest has to run first"):
        run_stages(config(data, tmp_path, *FULL, "STAGES", ("retrain",)))
    with pytest.raises(
        DataError, match="no weights here: one of the stages train, harvest, retrain has to run first"
    ):
        run_stages(config(data, tmp_path, *FULL, "STAGES", ("evaluate",)))


def test_ignored_as_gt_trains_on_uncertain_regions(data, mined):
    from lens_d2.data.loader import load_training_records

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
    cells = lines[3].split(",")
    cells[1] = '"elsewhere"'
    path.write_text("\n".join([*lines[:3], ",".join(cells), *lines[4:]]))
    cfg = config(data, tmp_path, "DATASETS.LEDGER", str(path))
    with pytest.raises(DataError, match=rf"{path}: row 3 \(line 4\): "):
        LENSTrainer.build_train_loader(cfg)
