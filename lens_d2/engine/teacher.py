"""The teacher's part in the training: it follows the student, and takes its place in the end."""

from __future__ import annotations

from detectron2.engine import HookBase

from ..modeling.teacher import Teacher


class TeacherHook(HookBase):
    """Updates the teacher after each step, and gives the model its weights after the last one.

    So the final checkpoint, evaluation and mining have the teacher's weights. Stands before the hooks that save or
    evaluate. Needs the trainer's ``checkpointer``.
    """

    def __init__(self, teacher: Teacher):
        self.teacher = teacher

    def before_train(self) -> None:
        """Begin where the student begins, unless the teacher was resumed."""
        self.teacher.start(self.trainer.checkpointer.model)

    def after_step(self) -> None:
        """Follow the student, remember what it was told, and after the last step take its place."""
        self.teacher.remember()
        self.teacher.update_parameters(self.trainer.checkpointer.model)
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self.trainer.checkpointer.model.load_state_dict(self.teacher.module.state_dict())
