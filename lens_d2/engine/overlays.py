"""Pictures of a model's detections during training, for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from detectron2.config import CfgNode, configurable
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..data.mapper import SliceMapper
from ..structures.status import STATUS_OF_RECORD, BoxStatus
from ..visualization.samples import STYLES, SamplePicture, boxes_by_status, central_slice, sheet
from ..visualization.sheets import pixels

BEST, MIN_SCORE = 5, 0.05  # detections drawn on a slice, at most; their lowest score


def build_overlay_hooks(cfg: CfgNode) -> list[HookBase]:
    """The hook on the main rank if ``VIS_PERIOD`` is positive, else none."""
    return [OverlayHook(cfg)] if cfg.VIS_PERIOD > 0 and comm.is_main_process() else []


class OverlayHook(HookBase):
    """Puts detections beside the truth into the event storage, as "overlay/<expert>".

    The slices are always the same, one for each expert, without augmentation, so that the model can be watched
    as it learns. The hook draws no random numbers: training is the same with and without it.
    """

    @configurable
    def __init__(self, *, mapper: SliceMapper, period: int):
        """
        Args:
            mapper: without augmentation.
            period: iterations from one picture to the next.
        """
        self.mapper, self.period = mapper, period
        self.samples: dict[str, dict] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode):
        """Read ``INPUT`` and ``VIS_PERIOD``."""
        return {"mapper": SliceMapper(cfg, is_train=False), "period": cfg.VIS_PERIOD}

    def after_step(self) -> None:
        """Draw if the period is over."""
        if (self.trainer.iter + 1) % self.period == 0:
            if not self.samples:
                self.samples = self._choose(self.trainer.data_loader.samples.records)
            self._put_pictures()

    def _choose(self, records: Iterable[dict]) -> dict[str, dict]:
        """{expert: a sample with a lesion} from the expert's first record that has one."""
        chosen: dict[str, dict] = {}
        for record in records:
            lesions = (x for x in record["lesions"] if STATUS_OF_RECORD[x["status"]] == BoxStatus.LESION)
            boxes = sorted(box for lesion in lesions for box in lesion["boxes"])
            if boxes and record["expert"] not in chosen:
                chosen[record["expert"]] = self.mapper(record, int(boxes[len(boxes) // 2][0]))
        return chosen

    @torch.no_grad()
    def _put_pictures(self) -> None:
        model = self.trainer.checkpointer.model
        training = model.training
        model.eval()
        try:
            found = {expert: model([sample])[0]["instances"] for expert, sample in self.samples.items()}
        finally:
            model.train(training)
        for expert, sample in self.samples.items():
            picture = _picture(sample, found[expert].to("cpu"), self.mapper.hu_window)
            image = pixels(sheet([picture], list(STYLES)))
            self.trainer.storage.put_image(f"overlay/{expert}", torch.from_numpy(image).permute(2, 0, 1))


def _picture(sample: dict, found, hu_window: tuple[float, float]) -> SamplePicture:
    best = found[found.scores >= MIN_SCORE]
    best = best[best.scores.argsort(descending=True)[:BEST]]
    boxes = {**boxes_by_status(sample), "detection": best.pred_boxes.tensor.numpy()}
    title = f"{sample['volume']}, slice {sample['slice']}"
    return SamplePicture(central_slice(sample, hu_window), boxes, title, best.scores.tolist())
