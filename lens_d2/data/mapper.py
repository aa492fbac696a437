"""The mapper: from a dataset record and a slice number to a 2.5D training sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..structures.status import STATUS_OF_RECORD, BoxStatus
from .augmentation import SampleInput, build_augmentations, scaled_size
from .cache import CachedVolume, VolumeCache, build_cache
from .lesion_labels import TagTargets

# A lesion is no target if less than this part of it is left in the image, or it is thinner than this many pixels.
MIN_VISIBLE, MIN_PIXELS = 0.3, 1.0


def _experts(expert: str, experts: Sequence[str]) -> tuple[str, bool]:
    return expert, False


def _pooling(expert: str, experts: Sequence[str]) -> tuple[str, bool]:
    return experts[0], False


def _positive_pooling(expert: str, experts: Sequence[str]) -> tuple[str, bool]:
    return experts[0], expert != experts[0]


# Three points, x and y in pixels, whose images determine the affine map from the volume frame to a sample's.
FRAME = np.array([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]])

# DATASETS.COMBINE (LENS, Table IV): which expert learns from a record of an expert, and whether from its lesions
# alone.
DATASET_COMBINATIONS = {"experts": _experts, "pooling": _pooling, "positive_pooling": _positive_pooling}


def sample_positions(center: float, num_slices: int, interval: float, native_interval: float) -> np.ndarray:
    """(num_slices,) fractional native slices of a sample, ``interval`` mm apart around ``center``."""
    return center + (np.arange(num_slices) - num_slices // 2) * (interval / native_interval)


def window(hu: np.ndarray, hu_range: tuple[float, float]) -> np.ndarray:
    """Map a HU range linearly to 0..255 and clip what lies beyond (LENS, Section VI-A)."""
    low, high = hu_range
    return np.clip((hu - low) * np.float32(255.0 / (high - low)), 0, 255).astype(np.float32, copy=False)


def resize(image: Tensor, scale: float) -> Tensor:
    """Resize (S, H, W) by a factor, bilinearly."""
    if scale == 1.0:
        return image
    size = scaled_size(image.shape, scale)
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]


def crop_around(statuses: Sequence[str]) -> np.ndarray:
    """Mask of the boxes around which a crop may be placed: lesions, or hard negatives if there are none.

    Args:
        statuses: of n of a record's lesions (see :mod:`lens_d2.structures.records`).

    Returns:
        (n,) bool
    """
    status = np.array([STATUS_OF_RECORD[status] for status in statuses], dtype=int)
    is_lesion = status == BoxStatus.LESION
    return is_lesion if is_lesion.any() else status == BoxStatus.HARD_NEGATIVE


class SliceMapper:
    """Makes training samples of records: reads the slices around one, augments them, and marks the boxes on it.

    A sample is a dict: "image" (slices, H, W) float32 with intensities 0..255; "instances" with ``gt_boxes``
    (XYXY_ABS in the image), ``gt_classes`` (0), ``gt_status`` (:class:`BoxStatus`), ``gt_recist`` (n, 4, 2),
    x and y of the ends of the RECIST mark in the image, NaN where a box has no mark on this slice, and, unless all
    lesions weigh 1, ``gt_weight``; "expert"; "volume" and "slice", the slice's number in the volume frame;
    "to_volume" (2, 3) float64, the affine map of x, y in the image to the volume frame; "seed" of the
    augmentation.

    With ``tags``, "instances" have ``gt_tags`` (n, C) bool and ``gt_tag_weights`` (n, C), see
    :class:`~lens_d2.data.lesion_labels.TagTargets`.
    """

    gt_status = STATUS_OF_RECORD  # by the status of the record's lesion

    @configurable
    def __init__(
        self,
        *,
        cache: VolumeCache,
        num_slices: int,
        slice_interval: float,
        hu_window: tuple[float, float],
        augmentations: Sequence[T.Augmentation] = (),
        experts: tuple[str, ...] = (),
        combine: str = "experts",
        tags: TagTargets | None = None,
    ):
        """
        Args:
            cache: of the preprocessed volumes.
            num_slices: slices of a sample.
            slice_interval: mm between them.
            hu_window: HU range that becomes 0..255.
            augmentations: applied in order, see :mod:`lens_d2.data.augmentation`.
            experts: of the model.
            combine: one of ``DATASET_COMBINATIONS``.
            tags: labels of lesions, for a tag head.
        """
        self.cache = cache
        self.num_slices, self.slice_interval, self.hu_window = num_slices, slice_interval, hu_window
        self.augmentations = list(augmentations)
        self.experts = tuple(experts)
        if combine not in DATASET_COMBINATIONS:
            raise ValueError(
                f"DATASETS.COMBINE is {combine!r}; it must be one of {', '.join(DATASET_COMBINATIONS)}"
            )
        self.combine = DATASET_COMBINATIONS[combine]
        self.tags = tags

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        """Read ``INPUT``; random augmentation and tags are included only if ``is_train``.

        Raises:
            DataError: ``MODEL.MULAN.TAG_ON``, and the labels cannot be read or are not as many as the head has.
        """
        return {
            "cache": build_cache(cfg),
            "num_slices": cfg.INPUT.NUM_SLICES,
            "slice_interval": cfg.INPUT.SLICE_INTERVAL,
            "hu_window": tuple(cfg.INPUT.HU_WINDOW),
            "augmentations": build_augmentations(cfg, is_train),
            "experts": cfg.MODEL.LENS.EXPERTS,
            "combine": cfg.DATASETS.COMBINE,
            "tags": TagTargets.from_config(cfg) if is_train and cfg.MODEL.MULAN.TAG_ON else None,
        }

    def __call__(self, record: dict, slice_number: int, seed: int = 0) -> dict:
        """Make the sample of one slice.

        Args:
            record: of a sub-volume (see :mod:`lens_d2.structures.records`).
            slice_number: from 0 in the sub-volume.
            seed: of the augmentation.

        Raises:
            DataError: the volume cannot be read.
        """
        volume = self.cache.open(record)
        center = float(volume.geometry.slices_to_cache(np.array([slice_number], dtype=float))[0])
        image = self.read(volume, center)
        boxes, lesions = self._boxes_on(record, slice_number)
        statuses = [lesion["status"] for lesion in lesions]
        boxes = volume.geometry.boxes_to_cache(boxes)
        points = volume.geometry.points_to_cache(np.concatenate([FRAME, mark_ends(lesions, slice_number)]))
        image, boxes, points = self.augment(image, boxes, points, seed, crop_around(statuses))
        frame, ends = np.split(points, [len(FRAME)])
        gt_status = torch.tensor([self.gt_status[status] for status in statuses], dtype=torch.int64)
        fields = {"recist": ends.reshape(-1, 4, 2)}
        weight = np.array([lesion.get("weight", 1.0) for lesion in lesions], np.float32)
        fields |= {"weight": weight} if (weight != 1).any() else {}
        fields |= self.tags.of(lesions, record["expert"]) if self.tags else {}
        targets = self._targets(boxes, gt_status, image.shape[-2:], **fields)
        expert, lesions_only = self.combine(record["expert"], self.experts)
        return {
            "image": torch.from_numpy(image),
            "instances": Instances.cat([targets, _everything_else(targets)]) if lesions_only else targets,
            "expert": expert,
            "volume": record["volume"],
            "slice": slice_number,
            "to_volume": np.linalg.solve(np.column_stack([frame, np.ones(len(FRAME))]), FRAME).T,
            "seed": seed,
        }

    def read(self, volume: CachedVolume, center: float) -> np.ndarray:
        """(slices, H, W) intensities 0..255 around a fractional native slice of the cache frame."""
        positions = sample_positions(center, self.num_slices, self.slice_interval, volume.geometry.slice_interval)
        return window(volume.read(positions), self.hu_window)

    def augment(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        points: np.ndarray,
        seed: int,
        crop_around: np.ndarray | slice = slice(None),
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Augment slices, and boxes and points on them.

        Args:
            image: (S, H, W) float32.
            boxes: (n, 4) XYXY_ABS in it.
            points: (m, 2) x, y in it.
            seed: of every draw.
            crop_around: selects the boxes around which a crop may be placed.

        Returns:
            image, boxes and points; boxes and points may end up outside the image.
        """
        sample = SampleInput(image.transpose(1, 2, 0), boxes, crop_around, seed, points)
        sample.augment(self.augmentations)
        image = np.ascontiguousarray(sample.image.transpose(2, 0, 1), dtype=np.float32)
        return image, sample.boxes, sample.points

    @staticmethod
    def _boxes_on(record: dict, slice_number: int) -> tuple[np.ndarray, list[dict]]:
        """(n, 4) boxes in the volume frame and the record's lesion of each."""
        found = [
            (box[1:5], lesion)
            for lesion in record["lesions"]
            for box in lesion["boxes"]
            if int(box[0]) == slice_number
        ]
        boxes = np.array([box for box, _ in found], dtype=np.float64).reshape(-1, 4)
        return boxes, [lesion for _, lesion in found]

    @staticmethod
    def _targets(boxes: np.ndarray, status: Tensor, size: tuple[int, int], **fields: np.ndarray) -> Instances:
        """Clip boxes to the image.

        A lesion that is mostly cut off becomes an uncertain region, and is left out if hardly a pixel remains.

        Args:
            boxes: (n, 4) XYXY_ABS, may reach beyond the image.
            status: (n,) :class:`BoxStatus`.
            size: height and width of the image.
            fields: (n, ...) more of the boxes, float32 unless bool, by names without "gt_".
        """
        full = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
        clipped = full.clone()
        clipped.clip(size)
        visible = clipped.area() >= MIN_VISIBLE * full.area()
        keep = clipped.nonempty(MIN_PIXELS)
        status = status.masked_fill(~visible, int(BoxStatus.UNCERTAIN))[keep]
        targets = Instances(size, gt_boxes=clipped[keep], gt_status=status, gt_classes=torch.zeros_like(status))
        for name, values in fields.items():
            dtype = torch.bool if values.dtype == bool else torch.float32
            targets.set(f"gt_{name}", torch.as_tensor(values, dtype=dtype)[keep])
        return targets


def mark_ends(lesions: Sequence[dict], slice_number: int) -> np.ndarray:
    """(4 n, 2) x, y of the ends of n lesions' RECIST marks, four each, in their frame; NaN without a mark there.

    Args:
        lesions: of a record.
        slice_number: of the slice.
    """
    ends = np.full((len(lesions), 8), np.nan)
    for own, lesion in zip(ends, lesions, strict=True):
        if lesion.get("recist") is not None and lesion["key_slice"] == slice_number:
            own[:] = lesion["recist"]
    return ends.reshape(-1, 2)


def _everything_else(targets: Instances) -> Instances:
    """One uncertain region around the whole image, so that no pixel and no proposal becomes a negative.

    Its sides are more than twice the image's, so that its ignored region (r_i of its sides) covers the image.
    """
    height, width = targets.image_size
    box = torch.tensor([[-2.0 * width, -2.0 * height, 3.0 * width, 3.0 * height]])
    everything = Instances(targets.image_size, gt_boxes=Boxes(box))
    for name, values in targets.get_fields().items():
        if name != "gt_boxes":
            everything.set(name, values.new_zeros(1, *values.shape[1:]))
    everything.gt_status[:] = int(BoxStatus.UNCERTAIN)
    return everything
