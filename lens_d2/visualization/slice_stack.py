"""A scan's axial slices, small enough for a page on which people scroll and choose the window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..data.cache import CachedVolume
from .planes import Encoding, compand

SIDES = (768, 512, 384, 256)  # pixels of a slice's longer side
QUALITIES = (92, 84, 76)  # of JPEG
THIN = 2.5  # mm; slices closer than this are left out before those that remain lose pixels
SAMPLES = 8  # slices by which the size of a stack is judged
CHUNK = 16  # slices that are in memory together


@dataclass(frozen=True)
class Plan:
    """Slices that a stack holds, and how.

    Attributes:
        step: every so many slices one is kept.
        size: width and height of a slice, pixels.
        quality: of JPEG, 1 to 100.
    """

    step: int
    size: tuple[int, int]
    quality: int


@dataclass(frozen=True)
class SliceStack:
    """Axial slices in companded HU, see :func:`lens_d2.visualization.planes.compand`.

    Attributes:
        plan: by which it was made.
        shape: slices, rows and columns of the scan in the cache frame.
        slices: those that it holds, in the cache frame, from the feet upwards.
        images: each slice as a grey JPEG in base64.
    """

    plan: Plan
    shape: tuple[int, int, int]
    slices: Sequence[int] = ()
    images: Sequence[str] = ()

    @property
    def left_out(self) -> int:
        """Slices of the scan that it does not hold."""
        return self.shape[0] - len(self.slices)

    @property
    def is_reduced(self) -> bool:
        """Whether its slices have fewer pixels than the scan's in the cache frame."""
        return self.plan.size[0] < self.shape[2]


def make_stack(volume: CachedVolume, budget: int, kept: Iterable[int] = ()) -> SliceStack:
    """Make the best stack that fits into a number of bytes.

    It first loses quality, then slices that lie closer than :data:`THIN`, then pixels, and at last further slices.

    Args:
        volume: in the cache.
        budget: characters of all images together.
        kept: slices of the cache frame that are held if there is room for more than one, such as key slices.
    """
    wanted, depth = set(kept), volume.shape[0]
    for plan in _plans(volume):
        slices = sorted({*range(0, depth, plan.step), *(wanted if plan.step < depth else ())})
        sample = [slices[i] for i in np.linspace(0, len(slices) - 1, min(SAMPLES, len(slices))).astype(int)]
        expected = np.mean([len(image) for image in _encode(volume, sample, plan)]) * len(slices)
        if expected > budget and plan.step < depth:
            continue
        images = list(_encode(volume, slices, plan))
        if sum(map(len, images)) <= budget:
            break
    return SliceStack(plan, volume.shape, slices, images)


def _plans(volume: CachedVolume) -> Iterator[Plan]:
    """Plans, the best first; the last one keeps a single slice."""
    depth, height, width = volume.shape
    longest = max(height, width)
    thin = max(int(THIN / volume.geometry.slice_interval + 1e-6), 1)
    sides = sorted({min(side, longest) for side in SIDES}, reverse=True)
    sizes = [(max(round(width * s / longest), 1), max(round(height * s / longest), 1)) for s in sides]
    for size in sizes:
        for step in range(1 if size == sizes[0] else thin, thin + 1):
            yield from (Plan(step, size, quality) for quality in QUALITIES)
    step = thin
    while step < depth:
        step = min(2 * step, depth)
        yield Plan(step, sizes[-1], QUALITIES[-1])
    yield Plan(depth, sizes[-1], QUALITIES[-1])


def _encode(volume: CachedVolume, slices: Sequence[int], plan: Plan) -> Iterator[str]:
    """Slices of the cache frame as JPEG in base64."""
    encoding = replace(Encoding(), quality=plan.quality)
    for first in range(0, len(slices), CHUNK):
        for hu in volume.read(slices[first : first + CHUNK]):
            shown = hu if hu.shape[::-1] == plan.size else cv2.resize(hu, plan.size, interpolation=cv2.INTER_AREA)
            yield encoding.text(compand(shown))
