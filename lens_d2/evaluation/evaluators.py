"""Published protocols as Detectron2 evaluators of whole sub-volumes.

Each reports under its protocol's name, for the fused output and for each expert alone, and leaves in its folder

- ``metrics.json``: as of ``tools/evaluate.py``, for the fused output; ``experts`` has the same of each expert;
- ``predictions.json``, ``predictions_<expert>.json`` and ``ground_truth.json``, in the coordinates of the
  dataset's own files, so that ``tools/evaluate.py`` gives the same numbers for them;
- ``froc.png``, and ``precision_recall.png`` if the protocol has such a curve.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from detectron2.evaluation.testing import flatten_results_dict

from ..io.formats import FileFrame, marks_entry, tracklet_entry
from ..io.progress import progress
from ..structures.boxes import PLANE
from ..structures.detections import VolumeDetections
from .bootstrap import intervals
from .frames import box_truth, frame_of, mark_truth, slice_boxes
from .outputs import OutputsEvaluator
from .plots import plot_froc, plot_precision_recall
from .protocols import PROTOCOLS, Evaluation, Protocol
from .protocols.protocol import single_numbers
from .report import froc_table, write_entries, write_json
from .sets import BoxDetections, BoxTruth, Tracklets

logger = logging.getLogger(__name__)


class FROCEvaluator(OutputsEvaluator):
    """Base of the evaluators of a protocol: evaluates the fused output and each expert, and writes."""

    protocol: Protocol

    def __init__(self, dataset_name: str, output_dir=None, *, draws: int = 1000, seed: int = 0, **kwargs):
        """
        Args:
            dataset_name, output_dir, kwargs: as in the base class.
            draws, seed: of the bootstrap; 0 draws for no intervals.
        """
        super().__init__(dataset_name, output_dir, **kwargs)
        self.draws, self.seed = draws, seed
        self.frame = self.frame_of(dataset_name)

    def evaluate_outputs(self, records: list[dict], outputs: dict[str, dict]) -> dict:
        """{protocol: {"average_sensitivity", "sensitivity@0.125", ..., "<expert>/..."}}."""
        truth = self.truth(records)
        shown = progress(list(outputs), f"{self.dataset_name}, protocol {self.protocol.name}", nested=True)
        results = {name: self._evaluate_one(truth, outputs[name]) for name in shown}
        first, *others = outputs
        self.metrics = {
            "dataset": self.dataset_name,
            **results[first].metrics,
            "experts": {name: results[name].metrics for name in others},
        }
        table = froc_table({name: result.metrics for name, result in results.items()})
        logger.info(f"{self.dataset_name}, protocol {self.protocol.name}:\n{table}")
        if self.output_dir:
            self._write(self.output_dir, records, truth, outputs, results)
        numbers: dict[str, float] = {}
        for name, result in results.items():
            prefix = "" if name == first else f"{name}/"
            numbers |= {f"{prefix}{key}": value for key, value in single_numbers(result.metrics).items()}
        return {self.protocol.name: numbers}

    def _evaluate_one(self, truth: BoxTruth, entries: dict) -> Evaluation:
        result = self.protocol.evaluate(truth, self.detections(truth, entries))
        if self.draws:
            result.metrics.update(intervals(result.match.events, self.protocol, self.draws, self.seed))
        return result

    def _write(
        self, folder: Path, records: list[dict], truth: BoxTruth, outputs: dict, results: dict[str, Evaluation]
    ) -> None:
        curves = {}
        for name, result in results.items():
            is_first = not curves
            own = outputs[name]
            entries = ((v, self.entry_to_json(own[v]) if v in own else []) for v in (r["volume"] for r in records))
            file = "predictions.json" if is_first else f"predictions_{name}.json"
            write_entries(folder / file, entries)
            curves[name] = result.froc()
            if not is_first:
                del curves[name]["ci"]
        write_entries(folder / "ground_truth.json", self.truth_to_file(truth))
        plot_froc(folder / "froc.png", curves, title=f"FROC, {self.dataset_name}")
        first = next(iter(results.values()))
        if first.match.recall is not None:
            path, match = folder / "precision_recall.png", first.match
            plot_precision_recall(path, match.precision, match.recall, first.metrics["ap"])
        write_json(folder / "metrics.json", self.metrics)

    def frame_of(self, dataset_name: str) -> FileFrame:
        """Coordinates of the dataset's files."""
        return frame_of(dataset_name)

    def truth(self, records: list[dict]) -> BoxTruth:
        """The records' lesions in the files' coordinates."""
        raise NotImplementedError

    def truth_to_file(self, truth: BoxTruth) -> Iterator[tuple[str, list | dict]]:
        """Names of the sub-volumes and their truth in the layout of the protocol's files."""
        raise NotImplementedError

    def entry_to_json(self, entry) -> list:
        """A sub-volume's entry in the prediction file, of what :meth:`to_entry` gives."""
        raise NotImplementedError

    def detections(self, truth: BoxTruth, entries: dict):
        """The protocol's detections from what :meth:`to_entry` has given for sub-volumes, by their names."""
        raise NotImplementedError


class FROC3DEvaluator(FROCEvaluator):
    """LENS's protocol, 3D IoBB of at least 0.3 (Section VI-C). Predictions: [x1, y1, z1, x2, y2, z2, score]."""

    protocol = PROTOCOLS.get("lens3d")()

    def truth(self, records: list[dict]) -> BoxTruth:
        """Lesions with a 3D box."""
        return box_truth(records, self.frame)

    def truth_to_file(self, truth: BoxTruth) -> Iterator[tuple[str, list]]:
        """3D boxes by sub-volume."""
        return ((name, rows.tolist()) for name, rows in truth.by_volume(truth.boxes[:, self.frame.order3d]))

    def to_entry(self, detections: VolumeDetections, record: dict) -> np.ndarray:
        """(n, 7) 3D boxes with scores, in the file's numbers."""
        boxes = self.frame.to_file(np.asarray(detections.boxes).reshape(-1, 6), record["first_slice"])
        return np.column_stack([boxes, detections.scores])

    def entry_to_json(self, entry: np.ndarray) -> list:
        """A list for each detection."""
        return entry.tolist()

    def detections(self, truth: BoxTruth, entries: dict[str, np.ndarray]) -> BoxDetections:
        """3D boxes with scores, in the truth's order."""
        none = np.zeros((0, 7))
        rows = [entries.get(name, none) for name in truth.volumes]
        volume = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        boxes = np.concatenate([none, *rows])
        return BoxDetections(volume, boxes[:, :6], boxes[:, 6])


class P3DFROCEvaluator(FROCEvaluator):
    """Lesion-Harvester's protocol (Section III-E). Predictions: [[z, [x1, y1, x2, y2, score]], ...] a detection.

    z counts from 0 in the sub-volume, whatever the dataset's files do.
    """

    protocol = PROTOCOLS.get("p3d")()

    def frame_of(self, dataset_name: str) -> FileFrame:
        """Coordinates of the dataset's files, z from 0."""
        return replace(frame_of(dataset_name), numbered_slices=False)

    def truth(self, records: list[dict]) -> BoxTruth:
        """Boxes on key slices."""
        return mark_truth(records, self.frame)

    def truth_to_file(self, truth: BoxTruth) -> Iterator[tuple[str, dict]]:
        """Boxes on key slices by sub-volume and slice."""
        rows = truth.by_volume(truth.boxes[:, [2, *PLANE]])
        return ((name, marks_entry(own)) for name, own in rows)

    def to_entry(self, detections: VolumeDetections, record: dict) -> list[np.ndarray]:
        """(k, 6) boxes on slices, with their scores, of each detection, in the file's numbers."""
        rows, owner = slice_boxes(detections)
        rows = self.frame.slice_boxes_to_file(rows, record["first_slice"])
        ends = np.searchsorted(owner, np.arange(len(detections)), side="right")
        return np.split(rows, ends)[: len(detections)]

    def entry_to_json(self, entry: list[np.ndarray]) -> list:
        """Boxes on slices, a list for each detection."""
        return [tracklet_entry(rows) for rows in entry]

    def detections(self, truth: BoxTruth, entries: dict[str, list[np.ndarray]]) -> Tracklets:
        """Tracklets, in the truth's order."""
        parts = [entries.get(name, []) for name in truth.volumes]
        volume = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return Tracklets.of_rows(volume, [rows for part in parts for rows in part])


def summaries(results: Mapping, metric: str) -> dict[str, float]:
    """One metric of the model's own output, without those of single experts.

    Args:
        results: of an evaluation, of one dataset or of several by name.
        metric: "average_sensitivity", "ap".

    Returns:
        {"<dataset>/<protocol>" or "<protocol>": value}; empty if no protocol has the metric.
    """
    paths = {key.rpartition("/"): value for key, value in flatten_results_dict(results).items()}
    return {
        where: value
        for (where, _, name), value in paths.items()
        if name == metric and where.split("/")[-1] in PROTOCOLS
    }
