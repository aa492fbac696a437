"""Evaluators of a registered dataset, chosen by its metadata."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm

from ..data.loader import load_test_records
from ..evaluation.evaluators import FROC3DEvaluator, FROCEvaluator, P3DFROCEvaluator
from ..evaluation.report import write_json
from ..evaluation.slice_ap import SliceAPEvaluator
from ..io.cli import at_level
from ..io.errors import DataError
from ..visualization.detections import OverlayWriter

logger = logging.getLogger(__name__)

INFERENCE = "inference"  # folder of evaluations below OUTPUT_DIR
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


def check_test_sets(cfg: CfgNode) -> None:
    """Refuse to train if the evaluation could not be run, and warn if it shares patients with the training.

    Reads the datasets of ``DATASETS.TEST``, and those that are learnt from.

    Raises:
        DataError: as in :func:`~lens_d2.data.loader.load_test_records`, a dataset has an unknown
            ``evaluator_type``, or its annotations do not suit it.
    """
    with at_level(logging.WARNING, load_test_records.__module__):  # the evaluation will tell their numbers
        learnt = {name: _patients(DatasetCatalog.get(name)) for name in learnt_datasets(cfg)}
        for name in dict.fromkeys(cfg.DATASETS.TEST):
            records = load_test_records(cfg, name)
            for kind in _evaluator_types(name):
                EVALUATORS[kind](name).truth(records)
            tested = _patients(records)
            for other, patients in learnt.items():
                if common := len(tested & patients):
                    text = "%s: %d of its %d patients are in %s, too, which is trained on: figures will flatter"
                    logger.warning(text, name, common, len(tested), other)


def learnt_datasets(cfg: CfgNode) -> list[str]:
    """Names of the datasets that the detector, the classifier or the embedding of a run learns from."""
    names = [*cfg.DATASETS.TRAIN]
    if "fpr" in cfg.STAGES:
        names += cfg.MINING.DATASETS
    if "embedding" in cfg.STAGES and not cfg.MODEL.EMBEDDING.WEIGHTS:
        names += cfg.MODEL.EMBEDDING.DATASETS
    return list(dict.fromkeys(names))


def _patients(records: list[dict]) -> set[tuple[str, str]]:
    """Patients of some records; those of different experts are not the same."""
    return {(record["expert"], record["patient"]) for record in records}


def _evaluator_types(dataset_name: str) -> list[str]:
    """Keys of :data:`EVALUATORS` that a dataset's metadata name."""
    kinds = MetadataCatalog.get(dataset_name).evaluator_type
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    for kind in kinds:
        if kind not in EVALUATORS:
            raise DataError(dataset_name, f"no evaluator {kind!r}; there are {', '.join(EVALUATORS)}")
    return kinds


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> DatasetEvaluators:
    """Build the evaluators that a dataset's metadata ask for, 2D average precision, and overlay pictures.

    Args:
        cfg: with OUTPUT_DIR, TEST.OVERLAYS and MODEL.LENS.OUTPUT.
        dataset_name: its ``evaluator_type`` is a key of :data:`EVALUATORS`, or a list of them.
        output_dir: ``OUTPUT_DIR/inference/<dataset_name>`` unless given.

    Raises:
        DataError: the metadata name an unknown evaluator.
    """
    folder = Path(output_dir or os.path.join(cfg.OUTPUT_DIR, INFERENCE, dataset_name))
    kinds = _evaluator_types(dataset_name)
    output = cfg.MODEL.LENS.OUTPUT
    evaluators = [
        EVALUATORS[kind](dataset_name, folder if number == 0 else folder / kind, output=output)
        for number, kind in enumerate(kinds)
    ]
    pictures = [OverlayWriter.from_config(cfg, folder / "overlays")] if cfg.TEST.OVERLAYS else []
    return DatasetSuite(evaluators, SliceAPEvaluator(dataset_name, folder, output=output), folder, pictures)
