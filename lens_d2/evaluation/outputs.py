"""Collection of a detector's outputs by the evaluators of whole sub-volumes."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..io.artifacts import by_the_first
from ..structures.detections import FUSED, VolumeDetections

logger = logging.getLogger(__name__)


class OutputsEvaluator(DatasetEvaluator):
    """Base of the evaluators: collects what each output has found in every sub-volume, over all ranks."""

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        *,
        output: str = FUSED,
        distributed: bool = True,
    ):
        """
        Args:
            dataset_name: registered; its records are the truth.
            output_dir: folder of the files; None for no files.
            output: whose detections count as the model's: ``FUSED`` or an expert's name.
            distributed: whether the outputs of all ranks are gathered.
        """
        self.dataset_name, self.output, self.distributed = dataset_name, output, distributed
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.metrics: dict = {}
        self.reset()

    def reset(self) -> None:
        """Forget all outputs."""
        self._entries: dict[str, dict] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take outputs of the model.

        Args:
            inputs: records.
            outputs: {"volume", "detections": {name: VolumeDetections}} of each.
        """
        for record, output in zip(inputs, outputs, strict=True):
            for name, detections in output["detections"].items():
                self._entries.setdefault(name, {})[record["volume"]] = self.to_entry(detections, record)

    def evaluate(self) -> dict | None:
        """As :meth:`evaluate_outputs`, on the main rank; nothing if there were no outputs.

        It may last: meanwhile the other ranks meet the main one, so that none waits for too long.
        """
        if not self.distributed:
            return self._evaluate([self._entries]) if comm.is_main_process() else None
        gathered = comm.gather(self._entries, dst=0)
        results = by_the_first(partial(self._evaluate, gathered))
        return results if comm.is_main_process() else None

    def _evaluate(self, gathered: list[dict[str, dict]]) -> dict:
        """Evaluate the outputs of all ranks."""
        outputs: dict[str, dict] = {}
        for entries in gathered:
            for name, volumes in entries.items():
                outputs.setdefault(name, {}).update(volumes)
        if not outputs:
            logger.warning("%s: nothing was given to %s", self.dataset_name, type(self).__name__)
            return {}
        first = self.output if self.output in outputs else next(iter(outputs))
        order = [first, *sorted(outputs.keys() - {first})]
        return self.evaluate_outputs(
            DatasetCatalog.get(self.dataset_name), {name: outputs[name] for name in order}
        )

    def to_entry(self, detections: VolumeDetections, record: dict) -> Any:
        """Entry that is kept of the detections in a record's sub-volume."""
        raise NotImplementedError

    def evaluate_outputs(self, records: list[dict], outputs: dict[str, dict]) -> dict:
        """Evaluate all outputs, leave the numbers in ``metrics``, and write the files.

        Args:
            records: the truth.
            outputs: {name: {sub-volume: entry}}, the model's own output first.

        Returns:
            as Detectron2's evaluators, {task: {metric: number}}.
        """
        raise NotImplementedError
