"""Writers of a training's scalars: Detectron2's, and Weights & Biases' if the config names a project."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import yaml
from detectron2.config import CfgNode
from detectron2.engine import default_writers
from detectron2.utils.events import EventWriter, get_event_storage

from ..io.artifacts import digest

if TYPE_CHECKING:
    import wandb

WINDOW = 20  # iterations whose median is written of noisy scalars, as by Detectron2's writers


def build_writers(cfg: CfgNode, max_iter: int) -> list[EventWriter]:
    """Build the writers of a training: to the log, ``metrics.json``, TensorBoard, and ``WANDB.PROJECT``.

    Args:
        cfg: of the training.
        max_iter: its length, from which the log tells the time left.
    """
    return [*default_writers(cfg.OUTPUT_DIR, max_iter), *([WandbWriter(cfg)] if cfg.WANDB.PROJECT else [])]


class WandbWriter(EventWriter):
    """Sends scalars to Weights & Biases, one run for each output folder; a resumed training goes on in its run."""

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: of the training, which is shown with the run; ``WANDB.PROJECT`` and ``OUTPUT_DIR`` are read.
        """
        self.cfg = cfg
        self.last = -1
        self.run: wandb.Run | None = None

    def write(self) -> None:
        """Send the scalars that are new since the last call."""
        storage = get_event_storage()
        latest = storage.latest_with_smoothing_hint(WINDOW)
        scalars = {name: value for name, (value, iteration) in latest.items() if iteration > self.last}
        if scalars:
            self._begun().log(scalars, step=storage.iter)
            self.last = storage.iter

    def close(self) -> None:
        """End the run."""
        if self.run is not None:
            self.run.finish()

    def _begun(self) -> wandb.Run:
        if self.run is None:
            import wandb

            folder = os.path.abspath(self.cfg.OUTPUT_DIR)
            self.run = wandb.init(
                project=self.cfg.WANDB.PROJECT,
                dir=folder,
                name="/".join(folder.split(os.sep)[-2:]),
                id=digest([folder]),
                resume="allow",
                config=yaml.safe_load(self.cfg.dump()),
            )
        return self.run
