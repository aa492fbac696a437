"""Augmentation of training samples: Detectron2's transforms, drawn from the seed of the sample.

``INPUT.AUGMENTATIONS`` names entries of :data:`AUGMENTATION_REGISTRY` in order, with parameters where needed:

    INPUT:
      AUGMENTATIONS: [Scale, Shift, [RandomFlip, {prob: 0.5}]]

To add one, register a subclass of Detectron2's ``Augmentation``, for instance in a file of ``DATASETS.READERS``.
The parameters of its ``get_transform`` are attributes of :class:`SampleInput`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.utils.registry import Registry

from ..io.errors import DataError, did_you_mean

AUGMENTATION_REGISTRY = Registry("AUGMENTATION")
AUGMENTATION_REGISTRY.__doc__ = "Subclasses of Detectron2's Augmentation, by the names in INPUT.AUGMENTATIONS."
for _augmentation in (T.RandomFlip, T.RandomBrightness, T.RandomContrast):
    AUGMENTATION_REGISTRY.register(_augmentation)


class SampleInput(T.AugInput):
    """A sample that is being augmented.

    Attributes:
        image: (H, W, S) float32 intensities 0..255 of its slices.
        boxes: (n, 4) XYXY_ABS in the image; may end up outside.
        points: (m, 2) x, y in the image, moved along with it; may be NaN.
        crop_around: mask or slice of the boxes around which a crop may be placed.
        rng: source of every draw.
    """

    def __init__(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        crop_around: np.ndarray | slice,
        seed: int,
        points: np.ndarray | None = None,
    ):
        """
        Args:
            image, boxes, crop_around: the attributes.
            seed: of the sample.
            points: the attribute; None: no points.
        """
        super().__init__(image, boxes=boxes)
        self.points = np.zeros((0, 2)) if points is None else points
        self.crop_around, self.seed, self.rng = crop_around, seed, np.random.default_rng(seed)

    def transform(self, tfm: T.Transform) -> None:
        """Apply a transform to image, boxes and points."""
        super().transform(tfm)
        self.points = tfm.apply_coords(self.points)

    def augment(self, augmentations: Sequence[T.Augmentation]) -> None:
        """Apply augmentations one after another; those of Detectron2 draw from the sample's seed, too."""
        with _numpy_seeded(self.seed):
            self.apply_augmentations(augmentations)


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which Detectron2's augmentations draw from, and restore it afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def fit_scale(shape: tuple[int, ...], max_size: int) -> float:
    """Factor, at most 1, by which an image (..., H, W) is resized so that no side is longer than allowed."""
    return min(1.0, max_size / max(shape[-2:]))


def scaled_size(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """(H, W) of an image (..., H, W) that is resized by a factor."""
    height, width = (max(round(side * scale), 1) for side in shape[-2:])
    return height, width


@AUGMENTATION_REGISTRY.register()
class Scale(T.Augmentation):
    """Resizes by a random ratio, at most to ``max_size`` pixels, by one bilinear interpolation."""

    @configurable
    def __init__(self, *, max_size: int, scale_range: tuple[float, float] = (1.0, 1.0)):
        """
        Args:
            max_size: longest side of the result, in pixels.
            scale_range: of the ratio.
        """
        self.max_size, self.scale_range = max_size, scale_range

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """As named in ``INPUT``."""
        return {"max_size": cfg.INPUT.MAX_SIZE, "scale_range": tuple(cfg.INPUT.SCALE_RANGE)}

    def get_transform(self, image: np.ndarray, rng: np.random.Generator) -> T.Transform:
        """Draw the ratio."""
        shape = image.shape[:2]
        size = scaled_size(shape, min(rng.uniform(*self.scale_range), self.max_size / max(shape)))
        return T.NoOpTransform() if size == shape else T.ResizeTransform(*shape, *size)


@AUGMENTATION_REGISTRY.register()
class Shift(T.Augmentation):
    """Moves the contents by whole pixels along x and y; air fills the rest."""

    input_args = ("rng",)  # Detectron2 would take a single parameter for the image

    @configurable
    def __init__(self, *, shift_range: int):
        """
        Args:
            shift_range: pixels, at most, in either direction.
        """
        self.shift_range = shift_range

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """As named in ``INPUT``."""
        return {"shift_range": cfg.INPUT.SHIFT_RANGE}

    def get_transform(self, rng: np.random.Generator) -> T.Transform:
        """Draw the pixels along x and y."""
        dx, dy = rng.integers(-self.shift_range, self.shift_range + 1, size=2)
        return ShiftTransform(int(dx), int(dy))


class ShiftTransform(T.Transform):
    """Moves the contents of an image by whole pixels; zeros fill the rest."""

    def __init__(self, dx: int, dy: int):
        """
        Args:
            dx, dy: pixels to the right and down.
        """
        super().__init__()
        self.dx, self.dy = dx, dy

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, ...) with the contents moved."""
        height, width = img.shape[:2]
        dx, dy = int(np.clip(self.dx, -width, width)), int(np.clip(self.dy, -height, height))
        shifted = np.zeros_like(img)
        shifted[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = img[
            max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)
        ]
        return shifted

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(n, 2) x, y, moved as the image."""
        return coords + [self.dx, self.dy]


class CropAroundBox(T.Augmentation):
    """Cuts out a part of the image that holds the centre of one of the boxes; anywhere without boxes."""

    def __init__(self, crop_size: tuple[int, int]):
        """
        Args:
            crop_size: (h, w) of the part in pixels; at most the image's.
        """
        self.crop_size = crop_size

    def get_transform(
        self, image: np.ndarray, boxes: np.ndarray, crop_around: np.ndarray | slice, rng: np.random.Generator
    ) -> T.Transform:
        """Draw one of the boxes and where the part begins."""
        limits = np.array(image.shape[1::-1])  # W, H
        size = np.minimum(self.crop_size[::-1], limits)
        low, high = np.zeros(2, dtype=int), limits - size
        boxes = boxes[crop_around]
        if len(boxes):
            box = boxes[rng.integers(len(boxes))]
            center = ((box[:2] + box[2:]) / 2).astype(int)
            low, high = np.clip(center - size + 1, low, high), np.clip(center, low, high)
        return T.CropTransform(*rng.integers(low, high + 1).tolist(), *size.tolist())


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Augmentations of a config: ``INPUT.AUGMENTATIONS``, then ``INPUT.CROP``; in evaluation neither.

    Images are always scaled down to ``INPUT.MAX_SIZE``, first of all unless "Scale" is named.

    Raises:
        DataError: an entry names no augmentation or has wrong parameters, or ``INPUT.CROP.TYPE`` is unknown.
    """
    augmentations = [_build(cfg, entry) for entry in cfg.INPUT.AUGMENTATIONS] if is_train else []
    if not any(isinstance(augmentation, Scale) for augmentation in augmentations):
        augmentations.insert(0, Scale(max_size=cfg.INPUT.MAX_SIZE))
    if is_train and cfg.INPUT.CROP.ENABLED:
        if cfg.INPUT.CROP.TYPE != "absolute":
            raise DataError("INPUT.CROP.TYPE", f'{cfg.INPUT.CROP.TYPE!r}; only "absolute" is supported')
        augmentations.append(CropAroundBox(tuple(int(side) for side in cfg.INPUT.CROP.SIZE)))
    return augmentations


def _build(cfg: CfgNode, entry: str | Sequence) -> T.Augmentation:
    """An augmentation by its name, or by its name and parameters."""
    try:
        name, parameters = (entry, {}) if isinstance(entry, str) else entry
        augmentation = dict(AUGMENTATION_REGISTRY)[name]
        return augmentation(*([cfg] if hasattr(augmentation, "from_config") else []), **parameters)
    except KeyError:
        hint = did_you_mean(str(name), (known for known, _ in AUGMENTATION_REGISTRY))
        raise DataError("INPUT.AUGMENTATIONS", f"no {name!r}{hint}") from None
    except (TypeError, ValueError) as error:
        form = "give a name, or a pair of a name and {parameter: value}"
        raise DataError("INPUT.AUGMENTATIONS", f"{entry!r} cannot be used ({error}): {form}") from None
