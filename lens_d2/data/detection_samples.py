"""Detections as training samples of a classifier: true and false positives, and how an epoch draws them.

The rule is that of LENS, Sections IV-D and VI-B. In partially labelled volumes a detection without an annotation
may well be a lesion; mined annotations and uncertain regions keep such detections out of the false positives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from detectron2.data import DatasetFromList
from torch.utils.data import Dataset

from ..io.errors import DataError
from ..structures.detections import VolumeDetections
from ..structures.known_boxes import KnownBoxes, best_overlap
from ..structures.status import STATUS_OF_RECORD, BoxStatus
from .cache import VolumeCache
from .patches import PatchGrid
from .sampler import SampleIndex

MIN_SCORE = 1e-3  # lower scores weigh as much as this one, so that all can be drawn


class Label(IntEnum):
    """Use of a detection as a sample."""

    UNUSED = -1
    FALSE_POSITIVE = 0
    TRUE_POSITIVE = 1


def label_detections(
    detections: VolumeDetections, lesions: Sequence[dict], tp_iou: float = 0.5, fp_iou: float = 0.3
) -> np.ndarray:
    """Tell which detections of a volume are true and which are false positives.

    Args:
        detections: of the volume, in its frame.
        lesions: of its record. A true positive overlaps an annotation or a mined one; a false positive overlaps
            neither these nor an uncertain region.
        tp_iou: theta; a true positive's IoU is above it.
        fp_iou: theta_FP; a false positive's IoU is below it.

    Returns:
        (n,) int8 of :class:`Label`
    """
    of_status = {status: [x for x in lesions if STATUS_OF_RECORD[x["status"]] == status] for status in BoxStatus}
    on_lesion, on_uncertain = (
        best_overlap(detections, KnownBoxes.of_record({"lesions": of_status[status]}))
        for status in (BoxStatus.LESION, BoxStatus.UNCERTAIN)
    )
    label = np.full(len(detections), Label.UNUSED, dtype=np.int8)
    label[np.maximum(on_lesion, on_uncertain) < fp_iou] = Label.FALSE_POSITIVE
    label[on_lesion > tp_iou] = Label.TRUE_POSITIVE
    return label


@dataclass
class DetectionSamples:
    """The true and false positives of many volumes; 33 bytes each, as a volume has hundreds.

    Attributes:
        record: (n,) int32, index of each one's record.
        boxes: (n, 6) float32 in the volume frame.
        is_lesion: (n,) bool.
        weight: (n,) float32 > 0; a false positive is drawn with a probability in proportion to it.
    """

    record: np.ndarray
    boxes: np.ndarray
    is_lesion: np.ndarray
    weight: np.ndarray

    @classmethod
    def from_proposals(
        cls, records: list[dict], positives: Mapping[str, np.ndarray], negatives: Mapping[str, np.ndarray]
    ) -> DetectionSamples:
        """Make samples of proposals that are known to be lesions or not.

        Args:
            records: of the volumes.
            positives, negatives: (n, 6) boxes x1, y1, z1, x2, y2, z2 in the volume frame, by sub-volume; looked up
                one after another. Sub-volumes without any are skipped.

        Raises:
            DataError: there is no positive, or no negative.
        """
        parts = []
        for index, record in enumerate(records):
            for proposals, is_lesion in ((positives, True), (negatives, False)):
                boxes = np.asarray(proposals.get(record["volume"], ()), dtype=np.float32).reshape(-1, 6)
                parts.append(_samples(index, boxes, is_lesion, 1.0))
        return cls._joined(parts, "proposals of the training volumes")

    @classmethod
    def from_detections(
        cls,
        records: list[dict],
        detections: Mapping[str, VolumeDetections],
        tp_iou: float = 0.5,
        fp_iou: float = 0.3,
        fp_score_thresh: float = 0.0,
        fp_score_power: float = 0.0,
    ) -> DetectionSamples:
        """Make samples of detections, judged by the annotations of their volumes.

        Args:
            records: with annotations, mined ones and uncertain regions.
            detections: by sub-volume; looked up one after another. Sub-volumes without any are skipped.
            tp_iou, fp_iou: of :func:`label_detections`.
            fp_score_thresh: false positives with a lower detection score are left out.
            fp_score_power: a false positive's weight is its detection score to this power.

        Raises:
            DataError: there is no true positive, or no false one.
        """
        parts = []
        for index, record in enumerate(records):
            found = detections.get(record["volume"])
            if found is None or not len(found):
                continue
            label = label_detections(found, record["lesions"], tp_iou, fp_iou)
            label[(label == Label.FALSE_POSITIVE) & (found.scores < fp_score_thresh)] = Label.UNUSED
            used = label != Label.UNUSED
            weight = np.maximum(found.scores[used], MIN_SCORE) ** fp_score_power
            parts.append(_samples(index, found.boxes[used], label[used] == Label.TRUE_POSITIVE, weight))
        return cls._joined(parts, "detections of the training volumes")

    @classmethod
    def _joined(cls, parts: list[DetectionSamples], source: str) -> DetectionSamples:
        parts = [_samples(0, np.zeros((0, 6)), True, 1.0), *parts]
        fields = ("record", "boxes", "is_lesion", "weight")
        samples = cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))
        true, false = int(samples.is_lesion.sum()), int((~samples.is_lesion).sum())
        if not true or not false:
            hint = "train the detector longer, lower its score threshold, or move the IoUs of true and false ones"
            raise DataError(source, f"{true} true and {false} false positives, one of each is needed: {hint}")
        return samples

    def __len__(self) -> int:
        return len(self.record)

    def draw(self, rng: np.random.Generator, fp_per_tp: float) -> np.ndarray:
        """Draw the samples of an epoch: every true positive, and false ones in proportion.

        False positives are drawn by their weights, without repetition; if there are too few, all are drawn again.

        Args:
            rng: source of every draw.
            fp_per_tp: false positives per true one.

        Returns:
            numbers of the samples, shuffled.
        """
        true, false = np.flatnonzero(self.is_lesion), np.flatnonzero(~self.is_lesion)
        count = round(len(true) * fp_per_tp)
        # Ordered by exponential variables of these rates, the first k are k draws without replacement.
        rounds = [
            false[np.argsort(rng.exponential(size=len(false)) / self.weight[false], kind="stable")]
            for _ in range(-(-count // len(false)))
        ]
        drawn = np.concatenate([false[:0], *rounds])[:count]
        return rng.permutation(np.concatenate([true, drawn]))


def _samples(record: int, boxes: np.ndarray, is_lesion, weight) -> DetectionSamples:
    """Samples of one record; ``is_lesion`` and ``weight`` for each box or for all."""
    count = len(boxes)
    return DetectionSamples(
        np.full(count, record, np.int32),
        boxes.astype(np.float32),
        np.broadcast_to(is_lesion, count).astype(bool),
        np.broadcast_to(weight, count).astype(np.float32),
    )


class PatchDataset(Dataset):
    """Patches of detection samples, moved and mirrored at random.

    A sample is a dict: "patch" (1, D, H, W) float32 HU, "box" (6,) in patch coordinates, "is_lesion" float32.
    """

    def __init__(
        self,
        records: list[dict],
        samples: DetectionSamples,
        cache: VolumeCache,
        grid: PatchGrid,
        shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
        mirror: bool = False,
    ):
        """
        Args:
            records: of the volumes.
            samples: in them.
            cache: of the volumes.
            grid: of the patches.
            shift_mm: x, y, z mm by which patches are moved at most.
            mirror: whether half of them are mirrored along x.
        """
        self.records = DatasetFromList(records)
        self.samples, self.cache, self.grid = samples, cache, grid
        self.shift_mm, self.mirror = np.asarray(shift_mm, dtype=np.float64), mirror

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: SampleIndex) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(index.seed)
        volume = self.cache.open(self.records[self.samples.record[index.sample]])
        shift = rng.uniform(-self.shift_mm, self.shift_mm)
        patch, box = self.grid.crop(volume, self.samples.boxes[index.sample, None], shift[None])
        if self.mirror and rng.random() < 0.5:
            patch, box = patch[..., ::-1].copy(), mirror_boxes(box, self.grid)
        is_lesion = torch.tensor(float(self.samples.is_lesion[index.sample]))
        return {"patch": torch.from_numpy(patch), "box": torch.from_numpy(box[0]), "is_lesion": is_lesion}


def mirror_boxes(boxes: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """(n, 6) boxes in patches that are mirrored along x."""
    mirrored = boxes.copy()
    mirrored[:, 0], mirrored[:, 3] = grid.shape[2] - boxes[:, 3], grid.shape[2] - boxes[:, 0]
    return mirrored
