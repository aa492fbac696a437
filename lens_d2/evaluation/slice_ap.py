"""2D average precision slice by slice, through Detectron2's COCOEvaluator and pycocotools."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from ..io.progress import progress
from ..io.quiet import at_level
from .coco import Slices, coco_truth
from .evaluators import FUSED
from .frames import lesions_of, slice_boxes
from .report import write_json

logger = logging.getLogger(__name__)


class SliceAPEvaluator(DatasetEvaluator):
    """COCO's average precision over slices: all of them where the truth is 3D, else those that have a mark.

    Reports under "bbox", AP, AP50, ... of the model's output as they are and each expert's as "<expert>/AP50".
    Where given a folder, leaves the truth there as COCO JSON.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        *,
        output: str = FUSED,
        distributed: bool = True,
    ):
        self.dataset_name, self.output, self.distributed = dataset_name, output, distributed
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.metrics: dict = {}
        self.reset()

    def reset(self) -> None:
        self._slices: dict[str, dict[str, np.ndarray]] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
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
        truth = self._truth()
        if not outputs or not truth["annotations"]:
            return {}
        with tempfile.TemporaryDirectory() as scratch:
            file = write_json((self.output_dir or Path(scratch)) / "coco_truth.json", truth, indent=None)
            coco = _coco_evaluator(str(file))
        first = self.output if self.output in outputs else next(iter(outputs))
        self.metrics = {}
        order = [first, *sorted(outputs.keys() - {first})]
        for name in progress(order, f"{self.dataset_name}, average precision", nested=True):
            prefix = "" if name == first else f"{name}/"
            self.metrics |= {f"{prefix}{key}": v for key, v in self._ap(coco, truth, outputs[name]).items()}
        told = ", ".join(f"{key} {self.metrics[key]:.2f}" for key in ("AP", "AP50") if key in self.metrics)
        logger.info(f"{self.dataset_name}, boxes on slices: {told or 'no average precision'}")
        return {"bbox": dict(self.metrics)}

    def _truth(self) -> dict:
        metadata = MetadataCatalog.get(self.dataset_name)
        ids, images, rows, volume = {}, [], [], []
        for number, record in enumerate(DatasetCatalog.get(self.dataset_name)):
            boxes = [box for lesion in lesions_of(record) for box in lesion["boxes"]]
            marked = {int(box[0]) for box in boxes}
            for z in range(record["num_slices"]) if metadata.truth_is_3d else sorted(marked):
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
            rows += boxes
            volume += [number] * len(boxes)
        rows = np.array(rows, dtype=np.float64).reshape(-1, 5)
        inclusive = rows[:, 1:5] - [0, 0, 1, 1]
        lesions = Slices(np.array(volume, dtype=np.int64), rows[:, 0].astype(np.int64), inclusive)
        return coco_truth(images, lesions, ids)

    def _ap(self, coco: COCOEvaluator, truth: dict, volumes: dict[str, np.ndarray]) -> dict[str, float]:
        coco.reset()
        for image in truth["images"]:
            boxes = volumes.get(image["volume"], np.zeros((0, 6)))
            boxes = boxes[boxes[:, 0] == image["slice"]]
            instances = Instances((image["height"], image["width"]))
            instances.pred_boxes = Boxes(torch.from_numpy(np.ascontiguousarray(boxes[:, 1:5])).float())
            instances.scores = torch.from_numpy(np.ascontiguousarray(boxes[:, 5]))
            instances.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
            coco.process([{"image_id": image["id"]}], [{"instances": instances}])
        # pycocotools prints and Detectron2 logs a page for each output; this class says a line for all of them.
        theirs = at_level(logging.ERROR, "detectron2.evaluation.coco_evaluation")
        with contextlib.redirect_stdout(io.StringIO()), theirs:
            result = coco.evaluate().get("bbox", {})
        return {key: float(value) for key, value in result.items() if np.isfinite(value)}


def _coco_evaluator(json_file: str) -> COCOEvaluator:
    """Detectron2's evaluator of a COCO file, which it finds through the catalog."""
    name = f"slices of {json_file}"
    MetadataCatalog.get(name).set(
        json_file=json_file, thing_classes=["lesion"], thing_dataset_id_to_contiguous_id={1: 0}
    )
    try:
        return COCOEvaluator(name, tasks=("bbox",), distributed=False, use_fast_impl=False)
    finally:
        MetadataCatalog.remove(name)
