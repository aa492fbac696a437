"""Writers of a training's scalars: Detectron2's, and Weights & Biases' if the config names a project."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from detectron2.config import CfgNode
from detectron2.engine import default_writers
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

from ..io.artifacts import digest
from ..io.files import write_whole

if TYPE_CHECKING:
    import wandb

WANDB_ID = "wandb_id"  # file in the folder of a training
WINDOW = 20  # iterations whose median is written of noisy scalars, as by Detectron2's writers


def build_writers(cfg: CfgNode, max_iter: int) -> list[EventWriter]:
    """Build the writers of a training: to the log, ``metrics.json``, TensorBoard, and ``WANDB.PROJECT``.

    Args:
        cfg: of the training.
        max_iter: its length, from which the log tells the time left.
    """
    return [*default_writers(cfg.OUTPUT_DIR, max_iter), *([WandbWriter(cfg)] if cfg.WANDB.PROJECT else [])]


class WandbWriter(EventWriter):
    """Sends scalars to Weights & Biases; a resumed training continues its run, named by a file in its folder."""

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
            self._begun(storage).log(scalars, step=storage.iter)
            self.last = storage.iter

    def close(self) -> None:
        """End the run."""
        if self.run is not None:
            self.run.finish()

    def _begun(self, storage: EventStorage) -> wandb.Run:
        if self.run is None:
            import wandb

            folder = os.path.abspath(self.cfg.OUTPUT_DIR)
            path = Path(folder) / WANDB_ID
            first = min(history.values()[0][1] for history in storage.histories().values())
            if first == 0 or not path.is_file():
                write_whole(path, digest([folder, str(time.time_ns())]).encode())
            self.run = wandb.init(
                project=self.cfg.WANDB.PROJECT,
                dir=folder,
                name="/".join(folder.split(os.sep)[-2:]),
                id=path.read_text(),
                resume="allow",
                config=yaml.safe_load(self.cfg.dump()),
            )
        return self.run
