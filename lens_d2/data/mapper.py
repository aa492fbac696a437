"""From a dataset record and a slice number to a 2.5D training sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..structures.status import STATUS_OF_RECORD, BoxStatus
from .cache import CachedVolume, VolumeCache, build_cache

# A lesion of which less than this part is left in the picture, or that is thinner than this many pixels, is
# not a target.
MIN_VISIBLE, MIN_PIXELS = 0.3, 1.0


def _experts(dataset: str, experts: Sequence[str]) -> tuple[str, bool]:
    return dataset, False


def _pooling(dataset: str, experts: Sequence[str]) -> tuple[str, bool]:
    return experts[0], False


def _positive_pooling(dataset: str, experts: Sequence[str]) -> tuple[str, bool]:
    return experts[0], dataset != experts[0]


# DATASETS.COMBINE (LENS, Table IV): which expert a dataset trains, and whether by its lesions alone.
COMBINE = {"experts": _experts, "pooling": _pooling, "positive_pooling": _positive_pooling}


def sample_positions(center: float, num_slices: int, interval: float, native_interval: float) -> np.ndarray:
    """Where the slices of a sample lie, as fractional native slices: ``interval`` mm apart, around ``center``."""
    return center + (np.arange(num_slices) - num_slices // 2) * (interval / native_interval)


def window(hu: np.ndarray, hu_range: tuple[float, float]) -> np.ndarray:
    """Map a HU range linearly to 0..255, and clip (LENS, Section VI-A)."""
    low, high = hu_range
    return np.clip((hu - low) * np.float32(255.0 / (high - low)), 0, 255).astype(np.float32, copy=False)


def fit_scale(shape: tuple[int, ...], max_size: int) -> float:
    """The factor, at most 1, by which an image (..., H, W) is resized to have no longer side than allowed."""
    return min(1.0, max_size / max(shape[-2:]))


def resize(image: Tensor, scale: float) -> Tensor:
    """Resize (S, H, W) by a factor, bilinearly."""
    if scale == 1.0:
        return image
    size = [max(round(side * scale), 1) for side in image.shape[-2:]]
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]


def shift(image: Tensor, dx: int, dy: int, fill: float = 0.0) -> Tensor:
    """Move the contents of (S, H, W) by whole pixels; what comes in has the value ``fill``."""
    return F.pad(image, (dx, -dx, dy, -dy), value=fill)


def draw_crop(shape: tuple[int, ...], boxes: np.ndarray, size: tuple[int, int], rng: np.random.Generator):
    """Where a crop begins that holds the centre of one of the boxes, drawn at random; anywhere without boxes.

    Args:
        shape: (..., H, W) of the image. boxes: (n, 4) XYXY in its pixels. size: (h, w) of the crop.

    Returns:
        (x, y) of its first pixel, and its (h, w): at most the image's.
    """
    limits = np.array(shape[:-3:-1])  # W, H
    size = np.minimum(size[::-1], limits)
    low, high = np.zeros(2, dtype=int), limits - size
    if len(boxes):
        box = boxes[rng.integers(len(boxes))]
        center = ((box[:2] + box[2:]) / 2).astype(int)
        low, high = np.clip(center - size + 1, low, high), np.clip(center, low, high)
    x, y = rng.integers(low, high + 1)
    return (int(x), int(y)), (int(size[1]), int(size[0]))


def crop_around(statuses: Sequence[str]) -> np.ndarray:
    """(n,) bool: the boxes that a crop shows one of: lesions; where there is none, hard negatives; nothing else.

    Args:
        statuses: of n of a record's lesions (see :mod:`lens_d2.structures.records`).
    """
    status = np.array([STATUS_OF_RECORD[status] for status in statuses], dtype=int)
    is_lesion = status == BoxStatus.LESION
    return is_lesion if is_lesion.any() else status == BoxStatus.HARD_NEGATIVE


class SliceMapper:
    """Reads the slices around a slice of a record and gives a sample.

    A sample is a dict: "image" (slices, H, W) float32 with intensities 0..255; "instances" with ``gt_boxes``
    (XYXY_ABS in the image), ``gt_classes`` (0) and ``gt_status`` (:class:`BoxStatus`); "expert"; "volume" and
    "slice", the slice's number in the volume frame; "seed", of what is drawn at random for it.
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
        max_size: int,
        scale_range: tuple[float, float] = (1.0, 1.0),
        shift_range: int = 0,
        crop_size: tuple[int, int] | None = None,
        experts: tuple[str, ...] = (),
        combine: str = "experts",
    ):
        """
        Args:
            cache: of the preprocessed volumes.
            num_slices: slices of a sample. slice_interval: mm between them.
            hu_window: HU range that becomes 0..255.
            max_size: longest side of an image, in pixels.
            scale_range, shift_range: augmentation: ratio of resizing, and pixels of shift along x and y.
            crop_size: (h, w) in pixels of the part that is cut out after that, see :func:`crop_around`; None for
                the whole slice.
            experts: of the model. combine: one of ``COMBINE``.
        """
        self.cache = cache
        self.num_slices, self.slice_interval = num_slices, slice_interval
        self.hu_window, self.max_size = hu_window, max_size
        self.scale_range, self.shift_range, self.crop_size = scale_range, shift_range, crop_size
        self.experts = tuple(experts)
        if combine not in COMBINE:
            raise ValueError(f"DATASETS.COMBINE is not one of {', '.join(COMBINE)}: {combine}")
        self.combine = COMBINE[combine]

    @classmethod
    def from_config(cls, cfg, is_train: bool = True):
        ret = {
            "cache": build_cache(cfg),
            "num_slices": cfg.INPUT.NUM_SLICES,
            "slice_interval": cfg.INPUT.SLICE_INTERVAL,
            "hu_window": tuple(cfg.INPUT.HU_WINDOW),
            "max_size": cfg.INPUT.MAX_SIZE,
            "experts": cfg.MODEL.LENS.EXPERTS,
            "combine": cfg.DATASETS.COMBINE,
        }
        if is_train:
            ret["scale_range"] = tuple(cfg.INPUT.SCALE_RANGE)
            ret["shift_range"] = cfg.INPUT.SHIFT_RANGE
            if cfg.INPUT.CROP.ENABLED:
                if cfg.INPUT.CROP.TYPE != "absolute":
                    raise ValueError(f'INPUT.CROP.TYPE is not "absolute": {cfg.INPUT.CROP.TYPE}')
                ret["crop_size"] = tuple(int(side) for side in cfg.INPUT.CROP.SIZE)
        return ret

    def __call__(self, record: dict, slice_number: int, seed: int = 0) -> dict:
        """
        Args:
            record: of a sub-volume (see :mod:`lens_d2.structures.records`).
            slice_number: from 0 in the sub-volume.
            seed: of the augmentation.

        Raises:
            DataError: the volume cannot be read.
        """
        volume = self.cache.open(record)
        center = float(volume.geometry.slices_to_cache(np.array([slice_number], dtype=float))[0])
        image = torch.from_numpy(self.read(volume, center))
        boxes, statuses = self._boxes_on(record, slice_number)
        boxes = volume.geometry.boxes_to_cache(boxes)
        image, boxes = self.augment(image, boxes, np.random.default_rng(seed), crop_around(statuses))
        gt_status = torch.tensor([self.gt_status[status] for status in statuses], dtype=torch.int64)
        targets = self._targets(boxes, gt_status, tuple(image.shape[-2:]))
        expert, lesions_only = self.combine(record["expert"], self.experts)
        return {
            "image": image,
            "instances": Instances.cat([targets, _everything_else(targets)]) if lesions_only else targets,
            "expert": expert,
            "volume": record["volume"],
            "slice": slice_number,
            "seed": seed,
        }

    def read(self, volume: CachedVolume, center: float) -> np.ndarray:
        """(slices, H, W) intensities 0..255 around a fractional native slice of the cache frame."""
        positions = sample_positions(center, self.num_slices, self.slice_interval, volume.geometry.slice_interval)
        return window(volume.read(positions), self.hu_window)

    def augment(
        self,
        image: Tensor,
        boxes: np.ndarray,
        rng: np.random.Generator,
        around: slice | np.ndarray = slice(None),
    ) -> tuple[Tensor, np.ndarray]:
        """Resize, shift and crop at random (S, H, W) and the (n, 4) boxes in it; boxes may end up outside.

        A crop is drawn around one of the boxes that ``around`` selects.
        """
        height, width = image.shape[-2:]
        scale = rng.uniform(*self.scale_range) * fit_scale(image.shape, self.max_size)
        dx, dy = (int(d) for d in rng.integers(-self.shift_range, self.shift_range + 1, size=2))
        image = shift(resize(image, scale), dx, dy)
        boxes = boxes * np.tile([image.shape[-1] / width, image.shape[-2] / height], 2) + [dx, dy, dx, dy]
        if self.crop_size is None:
            return image, boxes
        (x, y), (h, w) = draw_crop(image.shape, boxes[around], self.crop_size, rng)
        return image[:, y : y + h, x : x + w], boxes - [x, y, x, y]

    @staticmethod
    def _boxes_on(record: dict, slice_number: int) -> tuple[np.ndarray, list[str]]:
        """(n, 4) boxes in the volume frame and the status of the record's lesion of each."""
        found = [
            (box[1:5], lesion["status"])
            for lesion in record["lesions"]
            for box in lesion["boxes"]
            if int(box[0]) == slice_number
        ]
        boxes = np.array([box for box, _ in found], dtype=np.float64).reshape(-1, 4)
        return boxes, [status for _, status in found]

    @staticmethod
    def _targets(boxes: np.ndarray, status: Tensor, size: tuple[int, int]) -> Instances:
        """Boxes clipped to the picture. A lesion that is hardly left in it becomes an uncertain region."""
        full = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
        clipped = full.clone()
        clipped.clip(size)
        visible = clipped.area() >= MIN_VISIBLE * full.area()
        keep = clipped.nonempty(MIN_PIXELS)
        status = status.masked_fill(~visible, int(BoxStatus.UNCERTAIN))[keep]
        return Instances(size, gt_boxes=clipped[keep], gt_status=status, gt_classes=torch.zeros_like(status))


def _everything_else(targets: Instances) -> Instances:
    """One uncertain region around the whole picture: no pixel and no proposal of it is a negative.

    Its sides are twice the picture's and more, so that its ignored region (r_i of its sides) covers the picture.
    """
    height, width = targets.image_size
    box = torch.tensor([[-2.0 * width, -2.0 * height, 3.0 * width, 3.0 * height]])
    status = torch.tensor([int(BoxStatus.UNCERTAIN)])
    return Instances(
        targets.image_size, gt_boxes=Boxes(box), gt_status=status, gt_classes=torch.zeros_like(status)
    )
