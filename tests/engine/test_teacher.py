"""A training with a teacher: it goes on after an interruption, and ends with the teacher's weights."""

import pytest
import torch
from detectron2.utils.env import seed_all_rng
from helpers.blocks import blocks_cfg, register_blocks

from lens_d2.engine import LENSTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

TAUGHT = (
    "MODEL.TEACHER.ENABLED", True, "MODEL.TEACHER.START_ITER", 1, "MODEL.TEACHER.DECAY", 0.5,
    "MODEL.TEACHER.LESION_SCORE", 0.5, "MODEL.TEACHER.UNCERTAIN_SCORE", 0.3,
)  # fmt: skip


class Killed(Exception):
    pass


def trained(folder, *opts, resume=False, killed_in=None):
    """A trainer after 4 steps, or killed in one, and its last checkpoint."""
    cfg = blocks_cfg(
        folder, "SOLVER.MAX_ITER", 4, "SOLVER.STEPS", (), "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", (),
        "TEST.OVERLAYS", 0, *opts,
    )  # fmt: skip
    register_blocks(folder.parent / "data")
    seed_all_rng(cfg.SEED)
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load(resume)
    step = trainer.run_step

    def run_step():
        if trainer.iter == killed_in:
            raise Killed
        step()

    trainer.run_step = run_step
    if killed_in is None:
        trainer.train()
    else:
        with pytest.raises(Killed):
            trainer.train()
    name = (folder / "output/last_checkpoint").read_text()
    return trainer, torch.load(folder / "output" / name, weights_only=True)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_ends_with_the_teachers_weights_as_if_it_had_not_been_interrupted(tmp_path):
    for name in ("whole", "parts", "plain"):
        (tmp_path / name).mkdir()
    trainer, whole = trained(tmp_path / "whole", *TAUGHT)
    assert equal(trainer.model.state_dict(), trainer.teacher.module.state_dict())
    assert int(trainer.teacher.n_averaged) == 4
    _, half = trained(tmp_path / "parts", *TAUGHT, killed_in=3)
    assert half["iteration"] == 1 and int(half["teacher"]["n_averaged"]) == 2
    _, resumed = trained(tmp_path / "parts", *TAUGHT, resume=True)
    assert equal(resumed["model"], whole["model"])
    _, plain = trained(tmp_path / "plain")
    assert not equal(plain["model"], whole["model"]) and "teacher" not in plain
