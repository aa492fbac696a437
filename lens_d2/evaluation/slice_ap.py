"""2D average precision slice by slice, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import logging

import numpy as np
from detectron2.data import MetadataCatalog
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..io.progress import progress
from ..structures.detections import VolumeDetections
from ..structures.records import given_lesions
from .coco import Slices, coco_results, coco_truth
from .frames import slice_boxes
from .outputs import OutputsEvaluator
from .report import write_json

logger = logging.getLogger(__name__)

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # the first of COCO's numbers, as Detectron2 names them


class SliceAPEvaluator(OutputsEvaluator):
    """COCO's average precision over slices: all of them if the truth is 3D, else those that have a mark.

    Reports under "bbox": AP, AP50, ... of the model's output, and those of each expert as "<expert>/AP50".
    Given a folder, it leaves the truth there as COCO JSON.
    """

    def to_entry(self, detections: VolumeDetections, record: dict) -> np.ndarray:
        """(m, 6) boxes on slices with their scores, in the volume frame."""
        return slice_boxes(detections)[0]

    def evaluate_outputs(self, records: list[dict], outputs: dict[str, dict[str, np.ndarray]]) -> dict:
        """{"bbox": {"AP", "AP50", ..., "<expert>/AP", ...}} in percent."""
        truth, ids = self._truth(records)
        if not truth["annotations"]:
            return {}
        if self.output_dir:
            write_json(self.output_dir / "coco_truth.json", truth, indent=None)
        first, self.metrics = next(iter(outputs)), {}
        for name in progress(list(outputs), f"{self.dataset_name}, average precision", nested=True):
            prefix = "" if name == first else f"{name}/"
            boxes = [outputs[name].get(record["volume"], np.zeros((0, 6))) for record in records]
            found = slice_average_precision(truth, coco_results(_slices(boxes), ids))
            self.metrics |= {f"{prefix}{key}": value for key, value in found.items()}
        told = ", ".join(f"{key} {self.metrics[key]:.2f}" for key in ("AP", "AP50") if key in self.metrics)
        logger.info(f"{self.dataset_name}, boxes on slices: {told or 'no average precision'}")
        return {"bbox": dict(self.metrics)}

    def _truth(self, records: list[dict]) -> tuple[dict, dict]:
        """COCO's dictionary, and {(number of the record, slice): image id}."""
        is_3d = MetadataCatalog.get(self.dataset_name).truth_is_3d
        ids, images, boxes = {}, [], []
        for number, record in enumerate(records):
            own = [box[:5] for lesion in given_lesions(record) for box in lesion["boxes"]]
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


def slice_average_precision(truth: dict, results: list[dict]) -> dict[str, float]:
    """COCO's average precisions in percent, by their names in :data:`METRICS`; without those that are undefined.

    Args:
        truth: COCO's dictionary.
        results: COCO's list of results.
    """
    if not truth["images"]:
        return {}
    if not results:  # pycocotools needs a box; this one lies beside the image
        image = truth["images"][0]["id"]
        results = [{"image_id": image, "category_id": 1, "bbox": [-2.0, -2.0, 1.0, 1.0], "score": 0.0}]
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
