"""RECIST marks: key slice, longest diameter and the longest one at right angles to it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..structures.boxes import hull

# DeepLesion pads the extent of a RECIST mark by 5 pixels of about 0.8 mm. The phantom's pixels are larger, so
# the padding is kept in millimetres; every box of the universal dataset and of its truth gets the same.
BOX_PADDING_MM = 4.0
UPSAMPLE = 4


@dataclass(frozen=True)
class Mark:
    """A RECIST mark and its lesion's extent, in the scan's voxels.

    Attributes:
        key_slice: slice of the largest cross-section, from 0 in the scan.
        ends: (4, 2) x, y of the long axis' two ends and the short axis' two; pixel edges.
        long_px, short_px: lengths in pixels.
        slice_boxes: (n, 5) z, x1, y1, x2, y2: the mask's extent on each slice; pixel edges, not padded.
        areas: (n,) area of each slice in pixels.
    """

    key_slice: int
    ends: np.ndarray
    long_px: float
    short_px: float
    slice_boxes: np.ndarray
    areas: np.ndarray

    @property
    def extent(self) -> np.ndarray:
        """(4,) x1, y1, x2, y2 of the mark itself."""
        return np.concatenate([self.ends.min(axis=0), self.ends.max(axis=0)])

    def box3d(self, padding: float) -> np.ndarray:
        """(6,) 3D box of the whole lesion, padded in the plane by ``padding`` pixels."""
        return hull(self.slice_boxes) + [-padding, -padding, 0, padding, padding, 0]


def measure(place, cover) -> Mark:
    """Measure a lesion as a radiologist does.

    Args:
        place: (z, y, x) slices of the scan that ``cover`` fills.
        cover: (z, y, x) share of each voxel that the lesion fills; at least one above 0.5.
    """
    areas = (cover > 0.5).sum(axis=(1, 2))
    key = int(np.argmax(np.where(areas == areas.max(), cover.sum(axis=(1, 2)), -1)))
    origin = np.array([place[2].start, place[1].start])
    outlines = [_outline(plane) for plane in cover]
    rows = [[place[0].start + z, *(o.min(axis=0) + origin), *(o.max(axis=0) + origin)]
            for z, o in enumerate(outlines) if o is not None]  # fmt: skip
    ends = _cross(outlines[key]) + origin
    lengths = np.linalg.norm(ends[1::2] - ends[::2], axis=1)
    shown = np.array([o is not None for o in outlines])
    return Mark(place[0].start + key, ends, float(lengths[0]), float(lengths[1]), np.array(rows), areas[shown])


def _outline(plane) -> np.ndarray | None:
    """(n, 2) x, y of the border at coverage 0.5, pixel edges; None if nothing is covered."""
    if plane.max() <= 0.5:
        return None
    big = cv2.resize(np.pad(plane, 2), None, fx=UPSAMPLE, fy=UPSAMPLE, interpolation=cv2.INTER_LINEAR)
    rows, columns = np.nonzero(big > 0.5)
    if not len(rows):
        rows, columns = (np.array([v * UPSAMPLE]) for v in np.unravel_index(plane.argmax(), plane.shape))
    corners = np.concatenate([np.column_stack([columns + a, rows + b]) for a in (0, 1) for b in (0, 1)])
    hull = cv2.convexHull(corners.astype(np.int32))[:, 0]
    return hull / UPSAMPLE - 2.0


def _cross(outline) -> np.ndarray:
    """(4, 2) ends of the longest diameter, and of the longest one at right angles to it."""
    apart = np.linalg.norm(outline[:, None] - outline[None], axis=2)
    a, b = np.unravel_index(apart.argmax(), apart.shape)
    start, end = outline[a], outline[b]
    along = (end - start) / max(apart[a, b], 1e-6)
    across = np.array([-along[1], along[0]])
    dense = _densify(outline)
    t, s = (dense - start) @ along, (dense - start) @ across
    best, ends = -1.0, (start, end)
    for place in np.linspace(0.15, 0.85, 29) * apart[a, b]:
        near = np.abs(t - place) < max(0.06 * apart[a, b], 0.2)
        if near.any() and s[near].max() - s[near].min() > best:
            best = s[near].max() - s[near].min()
            ends = (start + along * place + across * s[near].min(), start + along * place + across * s[near].max())
    return np.array([start, end, *ends])


def _densify(outline, steps: int = 12) -> np.ndarray:
    after = np.roll(outline, -1, axis=0)
    t = (np.arange(steps) / steps)[:, None, None]
    return (outline + (after - outline) * t).reshape(-1, 2)
