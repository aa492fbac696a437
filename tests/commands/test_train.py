"""The command ``train`` as users run it: train, evaluate, resume, evaluate only, override."""

import json

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog
from helpers.blocks import EXPERTS, register_blocks
from helpers.ledger_rows import row

from lens_d2.commands import train
from lens_d2.commands.options import get_parser
from lens_d2.data.datasets.catalog import register_derived
from lens_d2.data.ledger.table import to_table, write_ledger
from lens_d2.engine import LENSTrainer
from lens_d2.io.checkpoint import LENSCheckpointer
from lens_d2.io.errors import DataError, WriteError

SMALL = {
    "_BASE_": "configs/phantom/lens_multi.yaml",
    "DATASETS": {"TRAIN": [f"blocks_{e}" for e in EXPERTS], "TEST": ["blocks_deeplesion", "blocks_luna"]},
    "MODEL": {
        "DENSENET": {
            "WEIGHTS": "",
            "GROWTH_RATE": 4,
            "BLOCK_CONFIG": [2, 2, 2],
            "INIT_FEATURES": 8,
            "OUT_CHANNELS": 16,
        },  # fmt: skip
        "AFP": {"CONV_DIM": 8},
        "ROI_BOX_HEAD": {"FC_DIM": 16},
    },
    "DATALOADER": {"NUM_WORKERS": 0},
    "SOLVER": {"MAX_ITER": 4, "STEPS": [], "CHECKPOINT_PERIOD": 2},
    "TEST": {"OVERLAYS": 1, "DETECTIONS_PER_IMAGE": 5},
}


@pytest.fixture
def run(repo_root, tmp_path):
    """Run the body of a rank with command line arguments, on blocks, below tmp_path."""
    register_blocks(tmp_path / "data")
    config = {**SMALL, "_BASE_": str(repo_root / SMALL["_BASE_"]), "INPUT": {"CACHE_DIR": str(tmp_path / "cache")}}
    (tmp_path / "blocks.yaml").write_text(yaml.safe_dump(config))

    def main(*words):
        words = ["train", "--config-file", str(tmp_path / "blocks.yaml"), *map(str, words)]
        return train.main(get_parser().parse_args(words))

    return main


def test_trains_evaluates_and_resumes(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run("OUTPUT_DIR", out)
    assert (out / "model_final.pth").is_file() and (out / "model_0000001.pth").is_file()
    events = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    assert any("loss_afp_center" in e for e in events)
    for name in ("blocks_deeplesion", "blocks_luna"):
        result = json.loads((out / "inference" / name / "metrics.json").read_text())
        assert result
        assert list((out / "inference" / name).glob("**/*.png"))

    started = []
    monkeypatch.setattr(LENSTrainer, "run_step", lambda self: started.append(self.iter))
    run("--resume", "OUTPUT_DIR", out, "SOLVER.MAX_ITER", 6)
    assert started == [4, 5]


def test_eval_only_gives_what_training_ended_with(run, tmp_path):
    out = tmp_path / "out"
    run("OUTPUT_DIR", out)
    first = json.loads((out / "inference/blocks_luna/metrics.json").read_text())
    weights = out / "model_final.pth"
    again = run("--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "again")
    assert json.loads((tmp_path / "again/inference/blocks_luna/metrics.json").read_text()) == first
    assert again["blocks_luna"]

    trained = (out / "config.yaml").read_bytes()
    run("--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", out, "MODEL.LENS.OUTPUT", "luna")
    assert (out / "config.yaml").read_bytes() == trained and (out / "inference/config.yaml").is_file()
    alone = json.loads((out / "inference/blocks_luna/metrics.json").read_text())
    assert alone["sensitivity"] == first["experts"]["luna"]["sensitivity"]
    assert alone["experts"]["fused"]["sensitivity"] == first["sensitivity"]


@pytest.mark.parametrize(
    ("key", "content", "fault"),
    [
        ("MODEL.WEIGHTS", None, "no such file"),
        ("MODEL.DENSENET.WEIGHTS", b"junk", "not a file of weights"),
        ("MODEL.FPR.WEIGHTS", b"junk", "not a file of weights"),
        ("DATASETS.LEDGER", b"a,b\n1,2\n", "no column id"),
    ],
)
def test_files_of_later_stages_are_read_before_training(run, tmp_path, monkeypatch, key, content, fault):
    monkeypatch.setattr(LENSTrainer, "__init__", lambda *_: pytest.fail("it trains"))
    path = tmp_path / ("ledger.csv" if key == "DATASETS.LEDGER" else "weights.pth")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path.name}: {fault}"):
        run("OUTPUT_DIR", tmp_path / "out", key, path)


def test_verdicts_in_the_way_of_mining_are_found_before_training(run, tmp_path, monkeypatch):
    monkeypatch.setattr(LENSTrainer, "run_step", lambda self: pytest.fail("it trains"))
    ledger = tmp_path / "out/mining/ledger.parquet"
    ledger.parent.mkdir(parents=True)
    write_ledger(ledger, [to_table([row(4, "new", "deeplesion_0", annotation="", status="accepted")])])
    with pytest.raises(DataError, match="lose the verdicts on 1 lesions"):
        run("OUTPUT_DIR", tmp_path / "out", "MINING.STRATEGIES", ("CrossSlice",))


def test_resumed_training_sees_the_batches_that_would_have_come(run, tmp_path, monkeypatch):
    seen = []
    original = LENSTrainer.run_step

    def spy(self):
        sampler = self.data_loader.batch_sampler
        seen.append((self.iter, sampler.start_iter))
        original(self)

    monkeypatch.setattr(LENSTrainer, "run_step", spy)
    monkeypatch.setattr(LENSTrainer, "test", classmethod(lambda *args: {}))
    out = tmp_path / "out"
    run("OUTPUT_DIR", out, "SOLVER.MAX_ITER", 2)
    run("--resume", "OUTPUT_DIR", out)
    assert seen == [(0, 0), (1, 0), (2, 2), (3, 2)]


def test_epochs_become_iterations_of_the_reference_world_size(run, tmp_path, monkeypatch):
    """Four volumes of two lesions in each dataset: 8 positives, with half as many negatives 12; 2 or 3 batches."""
    trained = []
    monkeypatch.setattr(LENSTrainer, "train", lambda self: trained.append((self.max_iter, self.cfg.SOLVER.STEPS)))
    run("OUTPUT_DIR", tmp_path / "out", "SOLVER.EPOCHS", 8, "SOLVER.EPOCH_STEPS", (4, 6))
    per_epoch = 8 // 4 + 3 * (12 // 4)
    assert trained == [(8 * per_epoch, (4 * per_epoch, 6 * per_epoch))]


def test_no_gpu_is_a_log_line(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    trained = []
    monkeypatch.setattr(LENSTrainer, "train", lambda self: trained.append(self.cfg.MODEL.DEVICE))
    run("OUTPUT_DIR", tmp_path / "out", "MODEL.DEVICE", "cuda")
    assert trained == ["cpu"]
    assert "no GPU found: running on the CPU" in (tmp_path / "out/log.txt").read_text()


def test_weights_of_another_architecture_are_refused(run, tmp_path):
    out = tmp_path / "out"
    run("OUTPUT_DIR", out, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ())
    weights = out / "model_final.pth"
    with pytest.raises(DataError, match="model_final.pth: weights of another architecture"):
        run("--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", out, "MODEL.AFP.CONV_DIM", 12)
    with pytest.raises(
        DataError, match=r"model_final.pth: weights of another architecture: no .* \(\d+ such keys\)"
    ):
        run("--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", out, "MODEL.PROPOSAL_GENERATOR.NAME", "FCOS")
    with pytest.raises(DataError, match="weights of another architecture: no place for backbone.fuse_"):
        run("--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", out, "INPUT.NUM_SLICES", 3)
    with pytest.raises(DataError, match="no such"):
        run("--eval-only", "MODEL.WEIGHTS", tmp_path / "absent.pth", "OUTPUT_DIR", out)


def test_a_refused_start_leaves_the_config_of_the_run_that_is_there(run, tmp_path):
    out = tmp_path / "out"
    run("OUTPUT_DIR", out, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ())
    before = (out / "config.yaml").read_bytes()
    with pytest.raises(DataError, match="another architecture"):
        run("--resume", "OUTPUT_DIR", out, "DATASETS.TEST", (), "MODEL.AFP.CONV_DIM", 12)
    assert (out / "config.yaml").read_bytes() == before


def test_resumed_with_other_settings_of_the_optimizer_it_follows_the_config(run, tmp_path):
    opts = ("OUTPUT_DIR", tmp_path / "out", "DATASETS.TEST", (), "SOLVER.WARMUP_ITERS", 0, "SOLVER.STEPS", (3,))
    run(*opts, "SOLVER.MAX_ITER", 2, "SOLVER.BASE_LR", 0.01, "SOLVER.WEIGHT_DECAY", 0.1)
    run("--resume", *opts, "SOLVER.MAX_ITER", 4, "SOLVER.BASE_LR", 0.002, "SOLVER.WEIGHT_DECAY", 0.0)
    optimizer = torch.load(tmp_path / "out/model_final.pth", weights_only=True)["trainer"]["_trainer"]["optimizer"]
    group = optimizer["param_groups"][0]
    assert group["weight_decay"] == 0 and group["lr"] == pytest.approx(0.0002)
    assert max(int(state["step"]) for state in optimizer["state"].values()) == 4


def test_a_run_that_fails_after_its_training_keeps_its_own_config(run, tmp_path, monkeypatch):
    """The checkpoints that it has left are of these settings."""
    opts = ("OUTPUT_DIR", tmp_path / "out", "SOLVER.MAX_ITER")
    run(*opts, 1, "DATASETS.TEST", ())

    def diverged(*_):
        raise DataError("out", "diverged")

    monkeypatch.setattr(LENSTrainer, "test", diverged)
    with pytest.raises(DataError, match="diverged"):
        run(*opts, 2)
    assert yaml.safe_load((tmp_path / "out/config.yaml").read_text())["SOLVER"]["MAX_ITER"] == 2


def test_resumed_with_another_optimizer_it_says_so(run, tmp_path):
    opts = ("OUTPUT_DIR", tmp_path / "out", "DATASETS.TEST", (), "SOLVER.MAX_ITER")
    for before, after in (("SGD", "RAdam"), ("RAdam", "SGD")):
        run(*opts, 1, "SOLVER.OPTIMIZER", before)
        with pytest.raises(DataError, match=f"another SOLVER.OPTIMIZER: {before}, and here {after}"):
            run("--resume", *opts, 2, "SOLVER.OPTIMIZER", after)


def test_checkpoints_without_the_name_of_the_newest_are_not_overwritten(run, tmp_path):
    """As when the small file was left out of a copy."""
    opts = ("OUTPUT_DIR", tmp_path / "out", "DATASETS.TEST", (), "SOLVER.MAX_ITER", 2)
    run(*opts)
    before = (tmp_path / "out/model_final.pth").read_bytes()
    (tmp_path / "out/last_checkpoint").unlink()
    with pytest.raises(DataError, match="out: holds checkpoints, but no last_checkpoint: write the name"):
        run("--resume", *opts)
    assert (tmp_path / "out/model_final.pth").read_bytes() == before


def test_resumed_with_other_settings_it_tells_them(run, tmp_path, caplog):
    opts = ("OUTPUT_DIR", tmp_path / "out", "DATASETS.TEST", ("blocks_luna",), "SOLVER.MAX_ITER")
    run(*opts, 2)
    run("--resume", *opts, 2)
    assert "goes on with other settings" not in caplog.text
    assert "blocks_luna: 4 of its 4 patients are in blocks_luna, too, which is trained on" in caplog.text
    assert "are in blocks_lits" not in caplog.text
    run("--resume", *opts, 3, "INPUT.SLICE_INTERVAL", 2.5)
    told = next(r.getMessage() for r in caplog.records if "goes on with other settings" in r.getMessage())
    assert "SOLVER.MAX_ITER was 2" in told and "INPUT.SLICE_INTERVAL was " in told and told.count(" was ") == 2


def test_resumed_with_other_batches_it_says_so(run, tmp_path):
    """As on another number of GPUs: a checkpoint counts iterations of its own batches."""
    opts = ("OUTPUT_DIR", tmp_path / "out", "DATASETS.TEST", (), "SOLVER.IMS_PER_BATCH")
    run(*opts, 2, "SOLVER.MAX_ITER", 2)
    with pytest.raises(DataError, match="batches of 2, and here of 4; .*IMS_PER_BATCH 2 keeps"):
        run("--resume", *opts, 4, "SOLVER.MAX_ITER", 4)


def test_resumed_with_other_parts_it_says_so(run, tmp_path):
    """As long as those before, they would take over the moments of the optimizer."""
    plain = ("DATASETS.TEST", (), "OUTPUT_DIR")
    run(*plain, tmp_path / "whole", "SOLVER.MAX_ITER", 1)
    opts = (*plain, tmp_path / "out", "MODEL.WEIGHTS", tmp_path / "whole/model_final.pth")
    run(*opts, "SOLVER.MAX_ITER", 1, "SOLVER.PARTS", ("backbone",))
    with pytest.raises(DataError, match=r"SOLVER.PARTS \['backbone'\], and here \['roi_heads'\]"):
        run("--resume", *opts, "SOLVER.MAX_ITER", 2, "SOLVER.PARTS", ("roi_heads",))


def test_resumed_with_a_shorter_length_it_is_finished(run, tmp_path):
    opts = ("OUTPUT_DIR", tmp_path / "out", "DATASETS.TEST", (), "SOLVER.MAX_ITER")
    run(*opts, 4)
    run("--resume", *opts, 2)
    assert torch.load(tmp_path / "out/model_final.pth", weights_only=True)["iteration"] == 3


def test_steps_that_a_short_training_does_not_reach(run, tmp_path):
    run("OUTPUT_DIR", tmp_path, "DATASETS.TEST", (), "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", (1, 2, 9))
    assert (tmp_path / "model_final.pth").exists()


def test_a_disk_that_is_full_in_the_last_step_ends_the_run_without_an_evaluation(run, tmp_path, monkeypatch):
    def full(self, name, **_):
        raise WriteError(name, "cannot be written: No space left on device")

    monkeypatch.setattr(LENSCheckpointer, "save", full)
    monkeypatch.setattr(LENSTrainer, "test", lambda *_: pytest.fail("evaluated"))
    with pytest.raises(WriteError, match="No space left"):
        run("OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 1)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("DATASETS.TRAIN", "(3,)", "DATASETS.TRAIN: 3 is no name"),
        ("DATASETS.TRAIN", "((),)", "DATASETS.TRAIN: .* is no name"),
        ("SOLVER.STEPS", "('a',)", "SOLVER.STEPS: 'a' is no number"),
        ("INPUT.HU_WINDOW", "('a','b')", "INPUT.HU_WINDOW: 'a' is no number"),
        ("MODEL.DENSENET.BLOCK_CONFIG", "('a',)", "MODEL.DENSENET.BLOCK_CONFIG: 'a' is no number"),
        ("DATASETS.READERS", "(3,)", "DATASETS.READERS: 3 is no path"),
        ("SEED", "4294967296", "SEED: 4294967296; numbers below 2147483648"),
    ],
)
def test_a_value_of_another_kind_names_its_key(run, tmp_path, key, value, fault):
    with pytest.raises(DataError, match=fault):
        run("OUTPUT_DIR", tmp_path / "out", key, value)
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_a_sub_volume_is_not_trained_past(run, tmp_path, monkeypatch):
    get = DatasetCatalog.get
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: [] if name == "blocks_luna" else get(name))
    with pytest.raises(DataError, match="DATASETS.TRAIN: blocks_luna: .* holds no sub-volume of it"):
        run("OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ())


@pytest.mark.parametrize(
    ("metadata", "change", "fault"),
    [
        ({}, lambda record: None, "DATASETS.TEST: blocks_deeplesion_late: .* holds no sub-volume of it"),
        ({"evaluator_type": "luna"}, lambda record: record, "no evaluator 'luna'; there are lens3d, p3d"),
        ({}, lambda record: {**record, "file_name": "absent.nii"}, "absent.nii"),
        ({}, lambda record: {**record, "lesions": [{**record["lesions"][0], "box3d": None}]}, "box3d"),
    ],
)
def test_what_could_not_be_evaluated_is_not_trained(run, tmp_path, metadata, change, fault):
    name = "blocks_deeplesion_late"
    changed = [new for record in DatasetCatalog.get("blocks_deeplesion") if (new := change(record))]
    register_derived(name, "blocks_deeplesion", lambda: changed, **metadata)
    with pytest.raises(DataError, match=fault):
        run("OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", (name,))
    assert not (tmp_path / "last_checkpoint").exists()


def test_resumed_with_another_dataset_it_says_what_to_do(run, tmp_path):
    opts = ("OUTPUT_DIR", tmp_path / "out", "DATASETS.TEST", ())
    run(*opts, "SOLVER.MAX_ITER", 1, "DATASETS.TRAIN", ("blocks_luna",), "MODEL.LENS.EXPERTS", ("luna",))
    with pytest.raises(DataError, match="begin anew with MODEL.WEIGHTS|weights of another architecture"):
        run(
            "--resume",
            *opts,
            "DATASETS.TRAIN",
            ("blocks_luna", "blocks_lits"),
            "MODEL.LENS.EXPERTS",
            ("luna", "lits"),
        )
