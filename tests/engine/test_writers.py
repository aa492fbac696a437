"""Scalars go to Weights & Biases if the config names a project; a training that is resumed goes on in its run."""

import sys
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage
from helpers.blocks import blocks_cfg, register_blocks

from lens_d2.engine import LENSTrainer, checks
from lens_d2.engine.writers import WandbWriter, build_writers
from lens_d2.io.errors import DataError


class FakeRun:
    def __init__(self, options):
        self.options, self.logged, self.finished = options, [], False

    def log(self, scalars, step):
        self.logged.append((step, scalars))

    def finish(self):
        self.finished = True


@pytest.fixture
def runs(monkeypatch) -> list[FakeRun]:
    """A wandb that keeps what it is sent."""
    runs = []
    fake = SimpleNamespace(init=lambda **options: runs.append(FakeRun(options)) or runs[-1])
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return runs


def test_a_training_sends_its_scalars(tmp_path, runs):
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path, "WANDB.PROJECT", "lesions", "DATASETS.TEST", (), "SOLVER.MAX_ITER", 3)
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load(False)
    trainer.train()
    (run,) = runs
    assert run.options["project"] == "lesions" and run.options["config"]["WANDB"] == {"PROJECT": "lesions"}
    assert run.options["name"].endswith("/output") and run.options["resume"] == "allow"
    assert run.finished and "loss_cls" in {name for _, scalars in run.logged for name in scalars}
    for start in (3, 0):  # resumed, and begun anew
        other = WandbWriter(cfg)
        with EventStorage(start) as storage:
            storage.put_scalar("a", 1.0)
            other.write()
            other.write()
    assert runs[1].options["id"] == run.options["id"] and runs[1].logged == [(3, {"a": 1.0})]
    assert runs[2].options["id"] != run.options["id"] and runs[2].logged == [(0, {"a": 1.0})]


def test_without_a_project_there_is_none(tmp_path):
    assert not any(isinstance(each, WandbWriter) for each in build_writers(blocks_cfg(tmp_path), 3))


def test_a_project_without_the_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="^WANDB.PROJECT: 'lesions', and the package wandb is not installed"):
        checks.check_training(blocks_cfg(tmp_path, "WANDB.PROJECT", "lesions"))
