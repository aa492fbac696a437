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
    assert int(trainer.teacher.n_averaged) == 5  # of the student before its first step and after each
    _, half = trained(tmp_path / "parts", *TAUGHT, killed_in=3)
    assert half["iteration"] == 1 and int(half["teacher"]["n_averaged"]) == 3
    _, resumed = trained(tmp_path / "parts", *TAUGHT, resume=True)
    assert equal(resumed["model"], whole["model"])
    _, plain = trained(tmp_path / "plain")
    assert not equal(plain["model"], whole["model"]) and "teacher" not in plain


def test_its_bank_goes_on_after_an_interruption(tmp_path):
    for name in ("whole", "parts", "none"):
        (tmp_path / name).mkdir()
    early = (
        *TAUGHT, "MODEL.TEACHER.START_ITER", 0, "MODEL.TEACHER.LESION_SCORE", 0.1,
        "MODEL.TEACHER.UNCERTAIN_SCORE", 0.1, "DATASETS.TRAIN", ("blocks_deeplesion",),
        "MODEL.LENS.EXPERTS", ("deeplesion",),
    )  # fmt: skip
    remembering = (*early, "MODEL.TEACHER.VISITS", 2)
    trainer, whole = trained(tmp_path / "whole", *remembering)
    assert not trainer.teacher._new_visits and whole["teacher_bank"]["slices"]
    _, half = trained(tmp_path / "parts", *remembering, killed_in=3)
    assert 0 < len(half["teacher_bank"]["slices"]) <= len(whole["teacher_bank"]["slices"])
    _, resumed = trained(tmp_path / "parts", *remembering, resume=True)
    assert equal(resumed["model"], whole["model"])
    assert resumed["teacher_bank"]["slices"] == whole["teacher_bank"]["slices"]
    _, without = trained(tmp_path / "none", *early)
    assert "teacher_bank" not in without and not equal(without["model"], whole["model"])


def test_resumed_at_its_end_it_takes_the_students_place(tmp_path):
    trained(tmp_path, *TAUGHT, killed_in=3)
    trainer = LENSTrainer(blocks_cfg(tmp_path, *TAUGHT, "SOLVER.MAX_ITER", 2, "DATASETS.TEST", ()))
    trainer.resume_or_load(True)
    final = torch.load(tmp_path / "output/model_final.pth", weights_only=True)
    teacher = {key.removeprefix("module."): x for key, x in final["teacher"].items() if key.startswith("module.")}
    assert equal(final["model"], teacher)


def test_before_it_labels_the_student_learns_as_without_it(tmp_path):
    for name in ("plain", "watched"):
        (tmp_path / name).mkdir()
    watched = ("MODEL.TEACHER.ENABLED", True, "MODEL.TEACHER.START_ITER", 3)
    (_, plain), (_, own) = (
        trained(tmp_path / name, *opts, killed_in=3) for name, opts in (("plain", ()), ("watched", watched))
    )
    assert plain["iteration"] == own["iteration"] == 1 and equal(plain["model"], own["model"])
    assert not equal(own["model"], {key.removeprefix("module."): x for key, x in own["teacher"].items()})


def test_it_begins_with_the_weights_that_are_loaded(tmp_path):
    """With START_ITER 0 it labels for the first step."""
    register_blocks(tmp_path / "data")
    trainer = LENSTrainer(blocks_cfg(tmp_path, *TAUGHT, "MODEL.TEACHER.START_ITER", 0, "DATASETS.TEST", ()))
    with torch.no_grad():  # as loading weights would
        for parameter in trainer.model.parameters():
            parameter.add_(0.01)
    trainer.before_train()
    assert equal(trainer.model.state_dict(), trainer.teacher.module.state_dict())
    assert trainer.teacher.n_averaged > trainer.teacher.start_iter


def test_its_start_is_scaled_to_the_ranks(tmp_path):
    cfg = blocks_cfg(tmp_path, "MODEL.TEACHER.START_ITER", 100, "SOLVER.REFERENCE_WORLD_SIZE", 1)
    scaled = LENSTrainer.auto_scale_workers(cfg, 8).MODEL.TEACHER
    assert scaled.START_ITER == 12 and scaled.DECAY == pytest.approx(0.999**8)
