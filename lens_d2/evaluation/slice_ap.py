"""2D average precision slice by slice, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..io.progress import progress
from ..structures.detections import FUSED
from .coco import Slices, coco_results, coco_truth
from .frames import lesions_of, slice_boxes
from .report import write_json

logger = logging.getLogger(__name__)

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # the first of COCO's numbers, as Detectron2 names them


class SliceAPEvaluator(DatasetEvaluator):
    """COCO's average precision over slices: all of them if the truth is 3D, else those that have a mark.

    Reports under "bbox": AP, AP50, ... of the model's output, and those of each expert as "<expert>/AP50".
    Given a folder, it leaves the truth there as COCO JSON.
    """

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
            output_dir: gets the truth; None for no file.
            output: whose detections count as the model's: ``FUSED`` or an expert's name.
            distributed: whether the outputs of all ranks are gathered.
        """
        self.dataset_name, self.output, self.distributed = dataset_name, output, distributed
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.metrics: dict = {}
        self.reset()

    def reset(self) -> None:
        """Forgets all outputs."""
        self._slices: dict[str, dict[str, np.ndarray]] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Takes outputs of the model.

        Args:
            inputs: records.
            outputs: {"volume", "detections": {name: VolumeDetections}} of each.
        """
        for record, output in zip(inputs, outputs, strict=True):
            for name, detections in output["detections"].items():
                self._slices.setdefault(name, {})[record["volume"]] = slice_boxes(detections)[0]

    def evaluate(self) -> dict | None:
        """{"bbox": {"AP", "AP50", ..., "<expert>/AP", ...}} in percent, on the main rank."""
        gathered = comm.gather(self._slices, dst=0) if self.distributed else [self._slices]
        if not comm.is_main_process():
            return None
        outputs: dict[str, dict[str, np.ndarray]] = {}
        for slices in gathered:
            for name, volumes in slices.items():
                outputs.setdefault(name, {}).update(volumes)
        records = DatasetCatalog.get(self.dataset_name)
        truth, ids = self._truth(records)
        if not outputs or not truth["annotations"]:
            return {}
        if self.output_dir:
            write_json(self.output_dir / "coco_truth.json", truth, indent=None)
        first = self.output if self.output in outputs else next(iter(outputs))
        self.metrics = {}
        order = [first, *sorted(outputs.keys() - {first})]
        for name in progress(order, f"{self.dataset_name}, average precision", nested=True):
            prefix = "" if name == first else f"{name}/"
            boxes = [outputs[name].get(record["volume"], np.zeros((0, 6))) for record in records]
            found = average_precision(truth, coco_results(_slices(boxes), ids))
            self.metrics |= {f"{prefix}{key}": value for key, value in found.items()}
        told = ", ".join(f"{key} {self.metrics[key]:.2f}" for key in ("AP", "AP50") if key in self.metrics)
        logger.info(f"{self.dataset_name}, boxes on slices: {told or 'no average precision'}")
        return {"bbox": dict(self.metrics)}

    def _truth(self, records: list[dict]) -> tuple[dict, dict]:
        """COCO's dictionary, and {(number of the record, slice): image id}."""
        is_3d = MetadataCatalog.get(self.dataset_name).truth_is_3d
        ids, images, boxes = {}, [], []
        for number, record in enumerate(records):
            own = [box[:5] for lesion in lesions_of(record) for box in lesion["boxes"]]
            boxes.append(np.array(own, dtype=np.float64).reshape(-1, 5))
            for z in range(record["num_slices"]) if is_3d else np.unique(boxes[-1][:, 0]).astype(int).tolist():
                ids[number, z] = len(images) + 1
                images.append(
                    {
                        "id": len(images) + 1,
                        "file_name": f"{record['volume']}/{z + record['first_slice']:03d}.png",
                        "volume": record["volume"],
                        "slice": z,
                        "height": record["height"],
                        "width": record["width"],
                    }
                )
        return coco_truth(images, _slices(boxes), ids), ids


def _slices(boxes: list[np.ndarray]) -> Slices:
    """(k, 5) z, x1, y1, x2, y2 or (k, 6), with the score, of each volume."""
    volume = np.repeat(np.arange(len(boxes)), [len(rows) for rows in boxes])
    rows = np.concatenate(boxes) if boxes else np.zeros((0, 5))
    return Slices(volume, rows[:, 0].astype(np.int64), rows[:, 1:5], rows[:, 5] if rows.shape[1] > 5 else None)


def average_precision(truth: dict, results: list[dict]) -> dict[str, float]:
    """COCO's average precisions in percent, by their names in :data:`METRICS`; without those that are undefined.

    Args:
        truth: COCO's dictionary.
        results: COCO's list of results.
    """
    if not results:
        return {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints a page
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = zip(METRICS, evaluation.stats, strict=False)
    return {name: 100.0 * float(value) for name, value in numbers if value >= 0}
