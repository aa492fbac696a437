"""Faults of a training that is running, told in one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.engine import TrainerBase

from ..io.cli import without_known_faults
from ..io.errors import DataError


@contextmanager
def finite_losses(output_dir: str) -> Iterator[None]:
    """Turns Detectron2's error about a loss that is not finite into one line.

    Raises:
        DataError: names the iteration and each loss.
    """
    try:
        yield
    except (FloatingPointError, AssertionError) as error:
        if isinstance(error, AssertionError) and "NaN" not in str(error):  # boxes that weights of NaN give
            raise
        hint = "lower SOLVER.BASE_LR, or clip gradients; --resume goes on from the last checkpoint, which is sound"
        raise DataError(output_dir, f"{error}: {hint}") from error


class CarefulTraining(TrainerBase):
    """What the trainers have in common: faults told in a line, and workers that end with the training.

    Stands before Detectron2's trainer among the bases; needs its ``data_loader``, a
    :class:`~lens_d2.data.loader.SampleLoader`, and a ``checkpointer``.
    """

    def train(self, *args):
        logging.getLogger("detectron2.engine.train_loop").addFilter(without_known_faults)
        try:
            return super().train(*args)
        finally:
            self.data_loader.close()

    def run_step(self) -> None:
        with finite_losses(self.checkpointer.save_dir):
            super().run_step()
