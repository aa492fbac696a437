"""The stages of a run on a tiny dataset: in one go, killed and resumed, begun anew."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from helpers.blocks import write_blocks
from helpers.kills import Killed, kill_at
from helpers.mining_cohort import mining_cfg, register_partly

from lens_d2.data.ledger.table import read_ledger, to_table, write_ledger
from lens_d2.data.ledger.verdicts import apply_verdicts
from lens_d2.engine import LENSTrainer, run_stages, stages
from lens_d2.engine.network_trainer import NetworkTrainer
from lens_d2.engine.stages import RunResults
from lens_d2.io import preemption
from lens_d2.io.artifacts import ArtifactStore
from lens_d2.io.errors import DataError
from lens_d2.mining.lens.mine import PatientStore
from lens_d2.mining.shards import ShardStore

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the datasets and a full cache: what all runs share."""
    folder = tmp_path_factory.mktemp("partly")
    register_partly(folder / "data")
    return folder


def config(data, output, *opts):
    return mining_cfg(data, "OUTPUT_DIR", str(output), *opts)


def is_shard(store, thing):
    return isinstance(store, ShardStore)


def is_patient(store, thing):
    return isinstance(store, PatientStore)


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
    text = (output / "evaluate/stage.json").read_text()
    assert str(output) not in text
    assert json.loads(text.replace("{OUTPUT_DIR}", str(output)))["result"] == done["evaluate"]


def test_a_run_that_was_moved_goes_on_with_its_own_files(data, whole_run, tmp_path):
    output, before = whole_run
    shutil.copytree(output, tmp_path / "moved")
    done = run_stages(config(data, tmp_path / "moved", *FULL), resume=True)
    assert done["retrain"]["weights"] == str(tmp_path / "moved/retrain/model_final.pth")
    assert done["train"]["ledger"] == str(tmp_path / "moved/train/mining/ledger.parquet")
    assert done["evaluate"]["metrics"] == before["evaluate"]["metrics"]


def test_paths_of_results_follow_their_run_however_they_were_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = ["./output/x/fpr/model_final.pth", "output/x/fpr/a.pth", "output/xy/b.pth", "a / b"]
    RunResults(Path("output/x/fpr"), "./output/x").put("stage", {"files": texts})
    shutil.copytree("output/x", "kept")
    found = RunResults(Path("kept/fpr"), "kept").find("stage")["files"]
    assert found == ["kept/fpr/model_final.pth", "kept/fpr/a.pth", *texts[2:]]


def test_the_ledger_and_unlabelled_slices_are_for_retraining_alone(whole_run):
    output, _ = whole_run
    first, second = ((output / stage / "config.yaml").read_text() for stage in ("train", "retrain"))
    assert "UNLABELED_SLICES: false" in first and "UNLABELED_SLICES: true" in second
    assert "LEDGER: ''" in first and f"LEDGER: {output}/train/mining/ledger.parquet" in second


KILLS = {
    "while proposing": (ArtifactStore, "write", 2, is_shard),
    "while mining": (ArtifactStore, "write", 2, is_patient),
    "while evaluating": (LENSTrainer, "test", 1, None),
    "when retraining begins": (LENSTrainer, "run_step", 1, None),
    "while evaluating again": (LENSTrainer, "test", 1, None),
    "while proposing for the classifier": (ArtifactStore, "write", 4, is_shard),
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


def test_asked_to_end_in_every_training_it_goes_on(data, whole_run, tmp_path, monkeypatch):
    """Each training ends after a step that is no multiple of the checkpoint's period; none is done twice."""
    whole, _ = whole_run
    cfg = config(data, tmp_path, *FULL, "STAGES", FULL[1][:3], "MODEL.FPR.SOLVER.CHECKPOINT_PERIOD", 100)
    steps = [kill_at(monkeypatch, trainer, "run_step") for trainer in (LENSTrainer, NetworkTrainer)]
    for asked in (3, 5 + 1, 5 + 5 + 2):  # steps after which the run is asked to stop
        monkeypatch.setattr(preemption, "requested", lambda asked=asked: sum(map(len, steps)) == asked)
        with pytest.raises(preemption.Preempted):
            run_stages(cfg, resume=True)
    monkeypatch.undo()
    steps = [kill_at(monkeypatch, trainer, "run_step") for trainer in (LENSTrainer, NetworkTrainer)]
    run_stages(cfg, resume=True)
    assert list(map(len, steps)) == [0, 2]
    for stage in ("train", "retrain", "fpr"):
        ours, theirs = (
            torch.load(folder / stage / "model_final.pth", weights_only=True)["model"]
            for folder in (tmp_path, whole)
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), stage


def test_asked_to_end_with_the_last_step_what_follows_the_training_waits(data, tmp_path, monkeypatch):
    cfg = config(data, tmp_path, *FULL, "STAGES", ("train",))
    steps = kill_at(monkeypatch, LENSTrainer, "run_step")
    monkeypatch.setattr(preemption, "requested", lambda: len(steps) == 5)
    with pytest.raises(preemption.Preempted):
        run_stages(cfg)
    assert (tmp_path / "train/model_final.pth").exists() and not (tmp_path / "train/proposals").exists()


def test_finished_stages_are_passed_over_and_a_new_run_begins_anew(data, whole_run, tmp_path):
    whole, expected = whole_run
    shutil.copytree(whole, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        calls = kill_at(patch, LENSTrainer, "run_step", 99)
        tests = kill_at(patch, LENSTrainer, "test", 99)
        again = run_stages(config(data, tmp_path / "run", *FULL), resume=True)
        assert json.loads(json.dumps(again).replace(str(tmp_path / "run"), str(whole))) == expected
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
    text = marker.read_text().replace("{OUTPUT_DIR}", str(tmp_path / "run"))
    assert json.loads(text)["result"] == done["evaluate"]
    assert done["evaluate"]["metrics"] == whole_run[1]["evaluate"]["metrics"]


def test_the_classifier_learns_with_a_harvested_ledger(data, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(
        stages, "load_training_records", lambda cfg, names: used.append((cfg.DATASETS.LEDGER, names)) or []
    )
    for name in ("open_shards", "load_model", "propose", "train_fpr", "LazyProposals"):
        monkeypatch.setattr(stages, name, lambda *args: "")
    run = stages.Run(config(data, tmp_path), done={"harvest": {"ledger": "harvested.parquet", "weights": "a.pth"}})
    stages.fpr(run)
    run.done = {"train": {"weights": "a.pth"}}
    stages.fpr(run)
    assert used == [("harvested.parquet", ("blocks_deeplesion",)), ("", ("blocks_deeplesion",))]


def test_a_detector_that_is_there_mines_what_it_would_have_mined_when_trained(data, whole_run, tmp_path):
    """The stage "mine" with the weights of a training leaves its ledger; the stage after it begins from them."""
    output, done = whole_run
    weights = done["train"]["weights"]
    opts = ("MODEL.WEIGHTS", weights, "STAGES", ("mine", "retrain"), "DATASETS.TEST", (), "SOLVER.MAX_ITER", 1)
    mined = run_stages(config(data, tmp_path, *FULL, *opts))
    for name in ("ledger.parquet", "ledger.csv"):
        assert (tmp_path / "mine/mining" / name).read_bytes() == (output / "train/mining" / name).read_bytes()
    assert f"LEDGER: {mined['mine']['ledger']}" in (tmp_path / "retrain/config.yaml").read_text()
    begun, trained = (
        torch.load(path, weights_only=True)["model"] for path in (weights, mined["retrain"]["weights"])
    )
    drifts = [torch.dist(trained[key], begun[key]) for key in begun if begun[key].ndim > 1]
    assert max(drifts) < 0.1


def test_a_detector_that_is_there_proposes_nothing_before_v_m_is_checked(data, tmp_path, monkeypatch):
    proposed = []
    for name in ("load_model", "open_shards", "propose"):
        monkeypatch.setattr(stages, name, lambda *args, name=name: proposed.append(name))
    opts = ("MODEL.WEIGHTS", "a.pth", "STAGES", ("mine",), "MINING.CALIBRATION.DATASET", "blocks_lits")
    with pytest.raises(DataError, match="no sub-volume of blocks_lits is mined"):
        run_stages(config(data, tmp_path, *FULL, *opts))
    assert proposed == []


def test_a_stage_alone_needs_those_before_it(data, tmp_path):
    for names, needed in (
        (("retrain",), "train, mine, harvest, self_training"),
        (("embedding", "retrain"), "train, mine, harvest, self_training"),
        (("evaluate",), "train, mine, harvest, self_training, retrain"),
        (("harvest", "self_training"), "train, mine"),
    ):
        fault = f"{names[-1]} cannot run: one of the stages {needed} has to run first"
        with pytest.raises(DataError, match=fault):
            run_stages(config(data, tmp_path, *FULL, "STAGES", names))
    assert not list(tmp_path.glob("*/log.txt"))


def test_results_of_later_stages_are_not_those_of_this_run(data, tmp_path, monkeypatch):
    """In a folder where another run has gone further."""
    for name in ("embedding", "mine", "retrain", "fpr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stage.json").write_text(json.dumps({"result": {"weights": f"{name}.pth"}}))
    ran = {}
    for name in ("train", "evaluate"):
        stage = lambda run, name=name: ran.update({name: dict(run.done)}) or {}  # noqa: E731
        monkeypatch.setitem(stages.STAGES._obj_map, name, stage)
    for resume in (False, True):
        run_stages(config(data, tmp_path, *FULL, "STAGES", ("train", "evaluate")), resume=resume)
        assert set(ran["train"]) == {"embedding"} and set(ran["evaluate"]) == {"embedding", "train"}
        stages._forget(stages.Run(config(data, tmp_path)), "train", checkpoints=False)
    run_stages(config(data, tmp_path, *FULL, "STAGES", ("evaluate",)))
    assert set(ran["evaluate"]) == {"embedding", "mine", "retrain", "fpr"}


ROUNDS = (
    *FULL, "STAGES", ("train", "self_training", "retrain"), "DATASETS.TEST", (), "SOLVER.MAX_ITER", 2,
    "SOLVER.CHECKPOINT_PERIOD", 1, "MINING.ROUNDS", 3, "MINING.STRATEGIES", ("CrossSlice", "SelfTraining"),
    "MINING.CALIBRATION.DATASET", "blocks_complete", "MINING.CALIBRATION.SIZES", (999.0,),
    "MINING.SELF_TRAINING.PRECISION", 0.0, "MINING.SELF_TRAINING.UNCERTAIN_PRECISION", 0.0,
    "MINING.SELF_TRAINING.QUOTA", 999.0,
)  # fmt: skip


@pytest.fixture
def vm(data):
    """The first two of the mined sub-volumes, with all their lesions."""
    marked = DatasetCatalog.get("blocks_deeplesion")[:2]
    complete = write_blocks(data / "data/deeplesion", "deeplesion")[:2]
    DatasetCatalog.register(
        "blocks_complete", lambda: [{**m, "lesions": c["lesions"]} for m, c in zip(marked, complete, strict=True)]
    )
    yield "blocks_complete"
    DatasetCatalog.remove("blocks_complete")


def test_rounds_of_self_training_killed_and_judged(data, vm, tmp_path):
    """Killed in each unit of a round it goes on, to the same ledgers; a verdict holds in the rounds after it."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run_stages(config(data, whole, *ROUNDS))
    rounds = done["self_training"]["rounds"]
    assert [each["round"] for each in rounds] == [2, 3]
    assert done["self_training"]["ledger"] == str(whole / "self_training/round_3/mining/ledger.parquet")
    assert f"LEDGER: {done['self_training']['ledger']}" in (whole / "retrain/config.yaml").read_text()
    ledgers = [read_ledger(each["ledger"]) for each in (done["train"], *rounds)]
    assert [set(ledger["round"]) for ledger in ledgers] == [{1}, {2}, {3}]
    assert all("annotation" in set(x["status"][x["strategy"] == "SelfTraining"]) for x in ledgers)

    kills = [
        (LENSTrainer, "run_step", 4, None),  # the second step of the second round
        (ArtifactStore, "write", 2, is_shard),
        (ArtifactStore, "write", 1, is_patient),
        (LENSTrainer, "run_step", 2, None),
    ]
    for owner, name, number, when in kills:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, owner, name, number, *([when] if when else []))
            run_stages(config(data, killed, *ROUNDS), resume=True)
    run_stages(config(data, killed, *ROUNDS), resume=True)
    for number in (2, 3):
        path = f"self_training/round_{number}/mining/ledger.csv"
        assert (killed / path).read_bytes() == (whole / path).read_bytes()

    last = read_ledger(rounds[-1]["ledger"])
    lesion = last["lesion"][(last["strategy"] == "SelfTraining") & (last["status"] == "annotation")].iloc[0]
    judged, _ = apply_verdicts(last, {lesion: {"verdict": "rejected"}}, "v.json")
    write_ledger(rounds[-1]["ledger"], [to_table(judged)])
    again = run_stages(config(data, whole, *ROUNDS, "MINING.ROUNDS", 4), resume=True)
    carried = read_ledger(again["self_training"]["ledger"]).query("status == 'rejected'")
    (name,) = set(carried["lesion"])
    assert name.startswith(f"{lesion}/judged-3-") and set(carried["round"]) == {3}
    assert [each["round"] for each in again["self_training"]["rounds"]] == [2, 3, 4]
