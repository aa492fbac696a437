"""Marks with labels as training samples of the lesion embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.data import DatasetFromList
from torch.utils.data import Dataset

from ..structures.boxes import PLANE, flat_boxes3d, key_slice_box
from .cache import VolumeCache
from .lesion_labels import LabelRelations, LesionLabels, Targets, class_weights, mark_row
from .patches import PatchGrid
from .sampler import SampleIndex


@dataclass
class LabelledLesions:
    """n marks and what is known of their labels.

    Attributes:
        record: (n,) index of each one's record.
        boxes: (n, 6), one slice thick, in the volume frame.
        targets: of all of them.
    """

    record: np.ndarray
    boxes: np.ndarray
    targets: Targets

    @classmethod
    def from_records(
        cls, records: list[dict], labels: Mapping[int, LesionLabels], relations: LabelRelations
    ) -> LabelledLesions:
        """Collect the marks of DeepLesion records that have at least one certain label.

        Args:
            records: of the marks.
            labels: by row in ``DL_info.csv``.
            relations: of the labels.
        """
        found = []
        for index, record in enumerate(records):
            for lesion in record["lesions"]:
                own = labels.get(mark_row(lesion))
                if own is not None and own.relevant:
                    found.append((index, key_slice_box(lesion), own))
        boxes = np.array([box for _, box, _ in found], dtype=np.float64).reshape(-1, 5)
        return cls(
            np.array([index for index, _, _ in found], dtype=np.int64),
            flat_boxes3d(boxes[:, 0], boxes[:, 1:]),
            relations.targets(own for _, _, own in found),
        )

    def __len__(self) -> int:
        return len(self.record)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The samples of an epoch: all of them, shuffled."""
        return rng.permutation(len(self))

    def class_weights(self, max_positive: float = 300.0) -> tuple[np.ndarray, np.ndarray]:
        """(C,) weights of a positive and of a negative label, see :func:`.lesion_labels.class_weights`."""
        return class_weights(self.targets.positive, max_positive)


class LesionPatchDataset(Dataset):
    """Patches around labelled lesions.

    A sample is a dict: "patch" (S, H, W) float32 HU, "box" (4,) XYXY in the patch, "positive", "known" and
    "reliable" (C,) bool (see :class:`Targets`), "seed" of the losses' random draws.
    """

    def __init__(
        self,
        records: list[dict],
        lesions: LabelledLesions,
        cache: VolumeCache,
        grid: PatchGrid,
        jitter: float = 0.0,
    ):
        """
        Args:
            records: of the volumes.
            lesions: in them.
            cache: of the volumes.
            grid: of the patches.
            jitter: a box's sides are moved by up to this part of its width or height.
        """
        self.records = DatasetFromList(records)
        self.lesions, self.cache, self.grid, self.jitter = lesions, cache, grid, jitter

    def __len__(self) -> int:
        return len(self.lesions)

    def __getitem__(self, index: SampleIndex) -> dict:
        number, seed = index
        box = self.lesions.boxes[number]
        size = np.tile(box[3:] - box[:3], 2)  # nothing along z
        box = box + np.random.default_rng(seed).uniform(-self.jitter, self.jitter, 6) * size
        volume = self.cache.open(self.records[self.lesions.record[number]])
        patch, inside = self.grid.crop(volume, box[None])
        sample = {"patch": torch.from_numpy(patch[0]), "box": torch.from_numpy(inside[0, PLANE])}
        targets = {name: torch.from_numpy(value[number]) for name, value in self.lesions.targets._asdict().items()}
        return {**sample, **targets, "seed": seed}
