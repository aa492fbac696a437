"""Evaluators of a registered dataset, chosen by its metadata."""

from __future__ import annotations

import os
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm

from ..evaluation.evaluators import FROC3DEvaluator, FROCEvaluator, P3DFROCEvaluator
from ..evaluation.report import write_json
from ..evaluation.slice_ap import SliceAPEvaluator
from ..visualization.detections import OverlayWriter

# By a dataset's metadata.evaluator_type.
EVALUATORS: dict[str, type[FROCEvaluator]] = {"lens3d": FROC3DEvaluator, "p3d": P3DFROCEvaluator}


class DatasetSuite(DatasetEvaluators):
    """Evaluators of a dataset, with one ``metrics.json`` for all of them.

    The file has the metrics of the first evaluator, and under their names ``slice_ap`` and further protocols'.
    """

    def __init__(self, evaluators: list, slice_ap: SliceAPEvaluator, output_dir: Path, pictures: list):
        super().__init__([*evaluators, slice_ap, *pictures])
        self.froc, self.slice_ap, self.output_dir = evaluators, slice_ap, output_dir

    def evaluate(self) -> dict:
        """Evaluate, and write ``metrics.json`` on the first rank."""
        results = super().evaluate()
        if comm.is_main_process() and self.froc[0].metrics:
            others = {e.protocol.name: e.metrics for e in self.froc[1:]}
            metrics = {**self.froc[0].metrics, "slice_ap": self.slice_ap.metrics, **others}
            write_json(self.output_dir / "metrics.json", metrics)
        return results


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> DatasetEvaluators:
    """Build the evaluators that a dataset's metadata ask for, 2D average precision, and overlay pictures.

    Args:
        cfg: with OUTPUT_DIR, TEST.OVERLAYS and MODEL.LENS.OUTPUT.
        dataset_name: its ``evaluator_type`` is a key of :data:`EVALUATORS`, or a list of them.
        output_dir: ``OUTPUT_DIR/inference/<dataset_name>`` unless given.

    Raises:
        KeyError: the metadata name an unknown evaluator.
    """
    folder = Path(output_dir or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name))
    kinds = MetadataCatalog.get(dataset_name).evaluator_type
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    unknown = [kind for kind in kinds if kind not in EVALUATORS]
    if unknown:
        raise KeyError(f"{dataset_name}: no evaluator {unknown[0]!r}; there are {', '.join(EVALUATORS)}")
    output = cfg.MODEL.LENS.OUTPUT
    evaluators = [
        EVALUATORS[kind](dataset_name, folder if number == 0 else folder / kind, output=output)
        for number, kind in enumerate(kinds)
    ]
    pictures = [OverlayWriter.from_config(cfg, folder / "overlays")] if cfg.TEST.OVERLAYS else []
    return DatasetSuite(evaluators, SliceAPEvaluator(dataset_name, folder, output=output), folder, pictures)
