"""The stage "harvest" on tiny volumes: two rounds in one go, killed and resumed, and what they leave."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from detectron2.engine import launch
from detectron2.utils import comm
from helpers.harvest_cohort import PARTIAL, VERIFIED, harvest_cfg, register, stand_in_shards
from helpers.kills import Killed, kill_at

from lens_d2.data.ledger.table import check_ledger, read_ledger, to_table, write_ledger
from lens_d2.data.loader import load_training_records
from lens_d2.engine import LENSTrainer, run_stages
from lens_d2.engine import harvest as harvest_module
from lens_d2.engine.launch import rank
from lens_d2.engine.network_trainer import NetworkTrainer
from lens_d2.io.artifacts import ArtifactStore
from lens_d2.io.errors import DataError
from lens_d2.io.formats import read_tracklets
from lens_d2.mining.harvester import results
from lens_d2.mining.harvester.results import read_labels, read_lesions
from lens_d2.mining.proposals import mined_datasets
from lens_d2.structures.known_boxes import KnownBoxes
from lens_d2.structures.status import BoxStatus

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the volumes and their cache, and the records of the sets."""
    folder = tmp_path_factory.mktemp("harvest")
    with pytest.MonkeyPatch.context() as patch:
        sets = register(folder / "data")
        patch.setattr(harvest_module, "open_shards", stand_in_shards(sets["all"]))
        yield folder, sets


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Two rounds in one go: the folder, and what the stage returned."""
    output = tmp_path_factory.mktemp("whole")
    return output, run_stages(harvest_cfg(data[0], output))["harvest"]


@pytest.mark.parametrize(
    "key, value, error",
    [
        ("HARVEST.VERIFIED", "blocks_none", "blocks_none: HARVEST.VERIFIED and HARVEST.DATASETS have to be"),
        ("TEST.TRACKER.IOU", 0.0, "IoU"),
        ("MODEL.LPC.WEIGHTS", "nowhere.pth", "nowhere.pth"),
        ("HARVEST.OTHER_LEDGERS", (("MGTM-SLLP", "nowhere.parquet"),), "nowhere.parquet"),
        ("HARVEST.OTHER_LEDGERS", ("MGTM-SLLP", "ledger.parquet"), "HARVEST.OTHER_LEDGERS: .*; pairs of a name"),
        ("HARVEST.FOLDS", 1, "HARVEST.FOLDS: 1, where blocks_vm has 2 patients"),
        ("HARVEST.FOLDS", 3, "HARVEST.FOLDS: 3, where blocks_vm has 2 patients"),
        ("DATASETS.LEDGER", "ledger.parquet", "DATASETS.LEDGER: harvesting makes its own"),
    ],
)
def test_faults_of_the_settings_show_before_training(data, tmp_path, key, value, error):
    with pytest.MonkeyPatch.context() as patch, pytest.raises((ValueError, KeyError), match=error):
        steps = kill_at(patch, LENSTrainer, "run_step")
        run_stages(harvest_cfg(data[0], tmp_path, key, value))
    assert steps == []


def test_a_round_leaves_what_it_promises(whole):
    output, result = whole
    for k in (1, 2):
        folder = output / f"harvest/round_{k}"
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert names >= {
            "generator", "proposals", "lpc", "scored", "ledger.parquet", "ledger.csv", "lesions.parquet",
            "negatives.parquet", "harvested.pkl", "recovered.pkl", "hard_negatives.pkl", "measures.json",
            "round.json",
        }  # fmt: skip
        assert len(list((folder / "scored").glob("*.parquet"))) == 6
        text = (folder / "round.json").read_text().replace("{OUTPUT_DIR}", str(output))
        assert json.loads(text) == result["rounds"][k - 1]
    assert [r["round"] for r in result["rounds"]] == [1, 2]
    assert result["ledger"] == result["rounds"][result["round"] - 1]["ledger"]


def test_the_ledger_has_lesions_on_the_slices_of_training_and_the_hard_negatives(whole, data):
    output, _ = whole
    sets = data[1]
    ledger = read_ledger(output / "harvest/round_1/ledger.csv")
    check_ledger(ledger, [*sets[VERIFIED], *sets[PARTIAL]], "ledger.csv")
    mined, negative = (ledger[ledger["status"] == status] for status in ("annotation", "hard_negative"))
    assert not ledger["id"].duplicated().any()
    lesions = {x.lesion: x for x in read_lesions(output / "harvest/round_1/lesions.parquet")}
    best = {(row.lesion, row.slice) for row in mined.itertuples()}
    assert {(x.lesion, int(x.best_slice[0])) for x in lesions.values() if not x.annotation} <= best
    assert set(ledger["strategy"]) == {"LesionHarvester"} and set(ledger["round"]) == {1}
    assert set(mined["lesion"]) <= set(lesions) and {r["volume"] for r in sets[PARTIAL]} & set(mined["volume"])
    assert negative.groupby("volume")["lesion"].nunique().reindex(
        [r["volume"] for r in sets[VERIFIED]]
    ).tolist() == [3, 3]
    pd.testing.assert_frame_equal(ledger, read_ledger(output / "harvest/round_1/ledger.parquet"))


def test_the_second_round_goes_on_from_the_first(whole, data):
    """Fine-tuned from its weights, on the given marks and its ledger; hard negatives are this round's alone."""
    output, result = whole
    config = (output / "harvest/round_2/generator/config.yaml").read_text()
    assert f"LEDGER: {output}/harvest/round_1/ledger.parquet" in config
    assert f"WEIGHTS: {output}/harvest/round_1/generator/model_final.pth" in config
    assert "MAX_ITER: 2" in config and "BASE_LR: 1.0e-05" in config
    cfg = harvest_cfg(data[0], output, "DATASETS.LEDGER", result["rounds"][0]["ledger"])
    status = {x["status"] for r in load_training_records(cfg) for x in r["lesions"]}
    assert status == {"annotation", "mined", "hard_negative"}
    second = read_ledger(result["rounds"][1]["ledger"])
    assert set(second.loc[second["status"] == "hard_negative", "round"]) == {2}
    lesions = read_lesions(result["rounds"][1]["lesions"])
    before = read_lesions(result["rounds"][0]["lesions"])
    volumes = {x.volume for x in before if not x.annotation}
    assert volumes <= {x.volume for x in lesions if not x.annotation}  # positives accumulate


def test_the_labels_of_a_round_are_read_back(whole, data):
    output, sets = whole[0], data[1]
    labels = read_labels(output / "harvest/round_1", {r["volume"] for r in sets[VERIFIED]})
    rows = to_table(labels.rows([*sets[VERIFIED], *sets[PARTIAL]])).to_pandas()
    pd.testing.assert_frame_equal(rows, read_ledger(output / "harvest/round_1/ledger.parquet"))


def test_released_files_are_read_back(whole):
    output, result = whole
    folder = output / "harvest/round_1"
    lesions = read_lesions(result["rounds"][0]["lesions"])
    found = read_tracklets(folder / "harvested.pkl")
    expected = [x for x in lesions if not x.annotation]
    assert sum(map(len, found.values())) == len(expected) == result["rounds"][0]["harvested"]
    for lesion in expected:
        same = [b for b in found[lesion.volume] if b.shape == lesion.slice_boxes.shape]
        assert any(np.allclose(lesion.slice_boxes, boxes) for boxes in same)
    negatives = read_tracklets(folder / "hard_negatives.pkl")
    assert sum(map(len, negatives.values())) == result["rounds"][0]["hard_negatives"]


def test_the_measures_have_table_1s_layout(whole):
    output, _ = whole
    rows = json.loads((output / "harvest/table.json").read_text())
    assert [row["labels"] for row in rows] == ["R_H", "P_H,1", "P_H,1^+", "P_H,2", "P_H,1..2^+"]
    assert rows[0]["R@100P"] == 0.5  # one of two lesions is marked
    assert all(row["R@80P"] >= 0.5 for row in rows[1:])  # and is right without being found
    with open(output / "harvest/table.csv") as file:
        table = list(csv.DictReader(file))
    assert [float(r["mean"]) for r in table[1:]] == [r["mean"] for r in rows[1:]]
    assert (output / "harvest/curves.png").stat().st_size > 10_000
    measures = json.loads((output / "harvest/round_2/measures.json").read_text())
    assert set(measures["curves"]) == {"s_g", "s_c", "s", "harvested"}
    assert measures["generator"]["round"] == 2 and measures["generator"]["8"] == 1.0  # it knows the truth
    with open(output / "harvest/generators.csv") as file:
        assert [row["round"] for row in csv.DictReader(file)] == ["1", "2"]


KILLS = [
    (LENSTrainer, "run_step", 2),  # training the first generator, after a checkpoint
    (ArtifactStore, "write", 3),  # proposing
    (NetworkTrainer, "run_step", 3),  # training the classifier, after two checkpoints
    (ArtifactStore, "write", 2),  # scoring
    (results, "write_tracklets", 2),  # harvesting
    (LENSTrainer, "run_step", 1),  # fine-tuning
    (ArtifactStore, "write", 9),  # scoring again, after six sub-volumes were proposed
]


def test_killed_at_any_moment_it_goes_on(data, whole, tmp_path):
    cfg = harvest_cfg(data[0], tmp_path)
    done = []
    for owner, name, number in KILLS:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, owner, name, number)
            run_stages(cfg, resume=True)
        done.append(sorted(path.parent.name for path in tmp_path.glob("harvest/*/round.json")))
    assert done == [[]] * 5 + [["round_1"]] * 2
    with pytest.MonkeyPatch.context() as patch:
        steps = kill_at(patch, LENSTrainer, "run_step")
        result = run_stages(cfg, resume=True)["harvest"]
    assert not steps  # both generators were trained before
    for k in (1, 2):
        for name in ("ledger.csv", "ledger.parquet", "harvested.pkl", "measures.json"):
            ours, theirs = (f / "harvest" / f"round_{k}" / name for f in (tmp_path, whole[0]))
            assert ours.read_bytes() == theirs.read_bytes(), (k, name)
    assert result["mean"] == whole[1]["mean"]
    with pytest.MonkeyPatch.context() as patch:
        work = [kill_at(patch, *what) for what in ((LENSTrainer, "run_step"), (ArtifactStore, "write"))]
        (tmp_path / "harvest/stage.json").unlink()
        assert run_stages(cfg, resume=True)["harvest"] == result
        assert work == [[], []]


def test_begun_anew_it_does_not_lose_a_verdict(data, whole, tmp_path):
    shutil.copytree(whole[0] / "harvest", tmp_path / "harvest")
    path = tmp_path / "harvest/round_1/ledger.parquet"
    ledger = read_ledger(path)
    ledger.loc[ledger["lesion"] == ledger["lesion"][0], "status"] = "accepted"
    write_ledger(path, [to_table(ledger)])
    before = path.read_bytes()
    with pytest.raises(DataError, match="mined anew it would lose the verdicts on 1 lesions"):
        run_stages(harvest_cfg(data[0], tmp_path))
    assert path.read_bytes() == before


def harvest_on_ranks(folder, output):
    """What each rank has of two rounds, written by the first."""
    torch.set_num_threads(1)
    sets = register(folder / f"rank{comm.get_rank()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harvest_module, "open_shards", stand_in_shards(sets["all"]))
        cfg = harvest_cfg(folder, output, "SOLVER.CHECKPOINT_PERIOD", 2)  # of one rank
        results = comm.gather(run_stages(cfg)["harvest"])
    if comm.is_main_process():
        (output / "results.json").write_text(json.dumps(results))


def test_two_ranks_share_the_rounds(whole, tmp_path):
    """Proposals, marks and the hits of a generator that knows the truth are those of one rank."""
    launch(rank, 2, dist_url="auto", args=(harvest_on_ranks, tmp_path, tmp_path))
    ours, theirs = json.loads((tmp_path / "results.json").read_text())
    assert ours == theirs and [r["round"] for r in ours["rounds"]] == [1, 2]
    for number, result in enumerate(ours["rounds"], start=1):
        assert (tmp_path / f"harvest/round_{number}/round.json").is_file()
        assert result["recovered"] == whole[1]["rounds"][number - 1]["recovered"] > 0
        assert len(list((tmp_path / f"harvest/round_{number}/scored").glob("*.parquet"))) == 6
        assert len(read_lesions(result["lesions"])) == result["recovered"] + result["harvested"]


@pytest.mark.parametrize("early, rounds", [(True, 3), (False, 4)])
def test_it_stops_when_the_mean_recall_no_longer_rises_unless_all_are_asked_for(
    data, tmp_path, monkeypatch, early, rounds
):
    means = [0.5, 0.6, 0.6, 0.55]
    monkeypatch.setattr(harvest_module.HarvestRound, "run", lambda self: {"mean": means[self.number - 1]})
    monkeypatch.setattr(harvest_module, "write_table", lambda *args: None)
    cfg = harvest_cfg(data[0], tmp_path, "HARVEST.ROUNDS", 4, "HARVEST.STOP_EARLY", early)
    result = run_stages(cfg)["harvest"]
    assert [r["mean"] for r in result["rounds"]] == means[:rounds] and result["mean"] == 0.6
    assert run_stages(cfg, resume=True)["harvest"] == result


def test_its_ledger_serves_stages_that_take_the_mined_datasets_alone(whole, data):
    """It names V_M's sub-volumes, too."""
    ledger = whole[1]["ledger"]
    cfg = harvest_cfg(data[0], whole[0], "DATASETS.LEDGER", ledger)
    records = load_training_records(cfg, mined_datasets(cfg))
    assert [r["volume"] for r in records] == [r["volume"] for r in data[1][PARTIAL]]
    added = read_ledger(ledger)["volume"].isin([r["volume"] for r in data[1][VERIFIED]])
    assert added.any() and not added.all()
    assert {lesion["status"] for record in records for lesion in record["lesions"]} > {"annotation"}


def test_with_folds_no_classifier_judges_what_it_was_trained_on(data, tmp_path, monkeypatch):
    """Neither in the round nor, as each is fine-tuned from its own of the last round, in one before."""
    folder, sets = data
    monkeypatch.setitem(sets[PARTIAL][0], "patient", sets[VERIFIED][0]["patient"])  # another study of the patient
    trained, original = [], harvest_module.train_lpc

    def train_lpc(cfg, records, *args):
        path = original(cfg, records, *args)
        trained.append(({r["volume"] for r in records}, args[3], path, cfg.MODEL.LPC.SOLVER.MAX_ITER))
        return path

    monkeypatch.setattr(harvest_module, "train_lpc", train_lpc)
    run_stages(harvest_cfg(folder, tmp_path, "HARVEST.FOLDS", 2, "HARVEST.STOP_EARLY", False))
    everything = {r["volume"]: r["patient"] for r in [*sets[VERIFIED], *sets[PARTIAL]]}
    one, two = ({v for v, p in everything.items() if p == r["patient"]} for r in sets[VERIFIED])
    assert len(one) == 2
    volumes, starts, paths, steps = zip(*trained, strict=True)
    assert list(volumes) == [everything.keys(), everything.keys() - one, everything.keys() - two] * 2
    assert starts == ("", "", "", *paths[:3]) and steps == (3, 3, 3, 2, 2, 2)
    assert (tmp_path / "harvest/round_1/fold_1/lpc/model_final.pth").is_file()


def test_with_another_number_of_folds_their_classifiers_begin_anew(data, tmp_path, monkeypatch):
    """Those of the last round have seen other sub-volumes."""
    starts, original = [], harvest_module.train_lpc
    monkeypatch.setattr(
        harvest_module, "train_lpc", lambda *args: starts.append(bool(args[-1])) or original(*args)
    )
    for rounds, folds in ((1, 0), (2, 2)):
        opts = ("HARVEST.ROUNDS", rounds, "HARVEST.FOLDS", folds, "HARVEST.STOP_EARLY", False)
        run_stages(harvest_cfg(data[0], tmp_path, *opts), resume=True)
    assert starts == [False, True, False, False]


def test_a_classifier_can_be_trained_anew_in_each_round(whole, data, tmp_path):
    opts = ("HARVEST.FINETUNE_CLASSIFIER", False, "HARVEST.WEIGHTS", whole[1]["rounds"][0]["weights"])
    with pytest.MonkeyPatch.context() as patch:
        steps = kill_at(patch, NetworkTrainer, "run_step")
        run_stages(harvest_cfg(data[0], tmp_path, *opts, "HARVEST.STOP_EARLY", False))
    assert len(steps) == 6  # MODEL.LPC.SOLVER's three in both


def test_a_round_after_a_review(whole, data, tmp_path):
    """More rounds are asked for by the same command; what the radiologist rejected is in none of them."""
    one = harvest_cfg(data[0], tmp_path, "HARVEST.ROUNDS", 1)
    first = run_stages(one)["harvest"]
    ledger = read_ledger(first["ledger"])
    refused = ledger.loc[(ledger["annotation"] == "") & (ledger["status"] == "annotation"), "lesion"].iloc[0]
    ledger.loc[ledger["lesion"] == refused, "status"] = "rejected"
    write_ledger(first["ledger"], [to_table(ledger)])
    with pytest.MonkeyPatch.context() as patch:
        steps = kill_at(patch, LENSTrainer, "run_step")
        assert run_stages(one, resume=True)["harvest"] == first and not steps
        result = run_stages(harvest_cfg(data[0], tmp_path), resume=True)["harvest"]
        assert len(steps) == 2  # of fine-tuning
    second = read_lesions(result["rounds"][1]["lesions"])
    (lost,) = (x for x in second if x.status == "rejected")
    known = KnownBoxes()
    known.add(lost.lesion, lost.slice_boxes, BoxStatus.LESION)
    others = [x for x in second if x.volume == lost.volume and x.is_lesion]
    assert lost.lesion == refused and not any((known.largest_overlap(x.slice_boxes) > 0.5).any() for x in others)
    assert result["rounds"][1]["harvested"] == whole[1]["rounds"][1]["harvested"] - 1


def test_a_trained_classifier_judges_the_first_round(whole, data, tmp_path):
    weights = whole[0] / "harvest/round_1/lpc/model_final.pth"
    opts = ("MODEL.LPC.WEIGHTS", str(weights), "HARVEST.WEIGHTS", whole[1]["rounds"][0]["weights"])
    with pytest.MonkeyPatch.context() as patch:
        steps = [kill_at(patch, trainer, "run_step") for trainer in (LENSTrainer, NetworkTrainer)]
        result = run_stages(harvest_cfg(data[0], tmp_path, *opts, "HARVEST.ROUNDS", 1))["harvest"]
    assert steps == [[], []]
    ours, theirs = (Path(x) for x in (result["ledger"], whole[1]["rounds"][0]["ledger"]))
    assert ours.read_bytes() == theirs.read_bytes()
