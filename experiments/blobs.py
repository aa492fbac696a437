"""A blob detector for lesions: Laplacians of Gaussians in 3D, tuned on validation volumes, run on test volumes.

    python -m experiments blobs --output output/blobs/predictions.json

It guards against a cohort of bright balls: what it finds without learning anything, a network need not learn. In
each window of HU it looks for bright or dark blobs in scale space, inside the body; the weight of each
window, the size of the boxes and the least scale are chosen for the average sensitivity on the validation set.
Predictions are written as {volume: [[x1, y1, z1, x2, y2, z2, score], ...]} in the coordinates of LENS's set.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from lens_d2.data.loader import load_records
from lens_d2.data.volume import read_volume
from lens_d2.evaluation.frames import box_truth, frame_of
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.sets import BoxDetections
from lens_d2.io.errors import DataError
from lens_d2.io.files import write_whole
from lens_d2.io.parallel import run_all

from .runs import add_output_argument

# window of HU, and +1 for blobs brighter than what is around them, -1 for darker ones
CHANNELS = {
    "lung, bright": (-950, 50, 1),
    "soft, bright": (-120, 220, 1),
    "soft, dark": (-20, 200, -1),
    "bone, bright": (150, 900, 1),
    "bone, dark": (0, 450, -1),
}
SIGMAS = (2.0, 2.8, 4.0, 5.6, 8.0, 11.3)  # mm
RADII = (1.0, 1.3, 1.73, 2.1, 2.6)  # tried, in units of sigma
PER_CHANNEL = 40  # candidates kept in a channel of a volume
PADDING_MM = 4.0  # boxes of the universal dataset are wider than the lesion by this much


@dataclass(frozen=True)
class Settings:
    """The settings that are tuned.

    Attributes:
        weights: of each channel's response, in the order of ``CHANNELS``; 0 leaves it out.
        radius: of a blob in units of its sigma (a ball's is the square root of 3).
        least: index of the smallest sigma that counts.
    """

    weights: tuple[float, ...] = (1.0,) * len(CHANNELS)
    radius: float = 1.73
    least: int = 0


def body_mask(hu: np.ndarray) -> np.ndarray:
    """(z, y, x) bool: the largest thing that is not air in each slice, its holes (lungs, bowel) filled."""
    mask = np.zeros(hu.shape, bool)
    for plane, out in zip(hu, mask, strict=True):
        labels, count = ndimage.label(ndimage.binary_opening(plane > -400, iterations=2))
        if count:
            largest = 1 + np.argmax(np.bincount(labels.ravel())[1:])
            out[:] = ndimage.binary_fill_holes(labels == largest)
    return mask


def blobs(hu: np.ndarray, spacing) -> np.ndarray:
    """Candidates of one volume.

    Args:
        hu: (z, y, x).
        spacing: x, y, z mm.

    Returns:
        (n, 6) channel, index of sigma, x, y, z (voxels), response in units of the window.
    """
    mask = body_mask(hu)
    inside = ndimage.binary_erosion(mask, np.ones((1, 3, 3)), iterations=max(1, round(6 / spacing[0])))
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        return np.zeros((0, 6))
    hu, inside = hu[box[0]], inside[box[0]]
    offset = np.array([s.start for s in box[0]])
    found = []
    for channel, (low, high, sign) in enumerate(CHANNELS.values()):
        grey = np.clip((hu - np.float32(low)) / np.float32(high - low), 0, 1) * np.float32(sign)
        place, level, value = scale_space_maxima(grey, np.asarray(spacing)[::-1], inside)
        best = np.argsort(-value, kind="stable")[:PER_CHANNEL]
        z, y, x = (place[best] + offset).T
        found.append(np.column_stack([np.full(len(best), channel), level[best], x, y, z, value[best]]))
    return np.concatenate(found)


def scale_space_maxima(grey, step, inside):
    """Local maxima of the scale-normalised, negated Laplacian of Gaussians.

    Args:
        grey: (z, y, x) float32.
        step: z, y, x mm.
        inside: where maxima count.

    Returns:
        (n, 3) z, y, x; (n,) index of sigma; (n,) response.
    """
    stack, smooth, reached = [], grey, 0.0
    for sigma in SIGMAS:
        more = np.sqrt(sigma**2 - reached**2)  # Gaussians add up
        smooth, reached = ndimage.gaussian_filter(smooth, more / step, truncate=3.0, mode="nearest"), sigma
        stack.append(np.float32(-(sigma**2)) * laplacian(smooth, step))
    stack = np.stack(stack)
    peak = (stack == ndimage.maximum_filter(stack, size=(3, 3, 5, 5), mode="nearest")) & inside & (stack > 0.02)
    level, *place = np.nonzero(peak)
    return np.column_stack(place), level, stack[peak]


def laplacian(values, step) -> np.ndarray:
    """Sum of the second differences along z, y, x, whose steps are ``step`` mm; 0 at the ends of an axis."""
    total = np.zeros_like(values)
    for axis, h in enumerate(step):
        along, out = np.moveaxis(values, axis, 0), np.moveaxis(total, axis, 0)
        out[1:-1] += (along[2:] + along[:-2] - 2 * along[1:-1]) / np.float32(h * h)
    return total


def boxes_of(candidates: np.ndarray, record: dict, settings: Settings) -> np.ndarray:
    """(n, 7) boxes in the volume frame and scores; weaker candidates inside stronger ones are dropped."""
    channel, level = candidates[:, 0].astype(int), candidates[:, 1].astype(int)
    score = candidates[:, 5] * np.asarray(settings.weights)[channel]
    kept = np.flatnonzero((score > 0) & (level >= settings.least))
    kept = kept[np.argsort(-score[kept], kind="stable")]
    centres = candidates[kept, 2:5]
    radius = settings.radius * np.asarray(SIGMAS)[level[kept]]
    spacing = np.asarray(record["spacing"])
    alive = np.ones(len(kept), bool)
    for i in range(len(kept)):
        if alive[i]:
            apart = np.linalg.norm((centres[i + 1 :] - centres[i]) * spacing, axis=1)
            alive[i + 1 :] &= apart > radius[i]
    kept, centres, radius = kept[alive], centres[alive], radius[alive]
    reach = np.column_stack([radius + PADDING_MM, radius + PADDING_MM, radius]) / spacing
    low = centres + [0.5, 0.5, 0] - reach
    high = centres + [0.5, 0.5, 0] + reach
    low = np.maximum(low, 0)
    high = np.minimum(high, [record["width"], record["height"], record["num_slices"] - 1])
    return np.column_stack([low, high, score[kept]])


def average_sensitivity(name: str, records, candidates, settings: Settings) -> float:
    """LENS's measure of the detections with ``settings`` on the records of the dataset ``name``."""
    frame = frame_of(name)
    truth = box_truth(records, frame)
    rows = [predict(r, candidates[r["volume"]], settings, frame) for r in records]
    volume = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    table = np.concatenate(rows)
    detections = BoxDetections(volume, table[:, :6], table[:, 6])
    return PROTOCOLS.get("lens3d")().evaluate(truth, detections).metrics["average_sensitivity"]


def predict(record, candidates, settings, frame) -> np.ndarray:
    """(n, 7) boxes in the file's coordinates, and scores."""
    found = boxes_of(candidates, record, settings)
    return np.column_stack([frame.to_file(found[:, :6], record["first_slice"]), found[:, 6]])


def tune(name: str, records, candidates) -> tuple[Settings, float]:
    """The settings of the best average sensitivity: a coordinate search from every channel alone and from all."""
    weights = (0.0, 0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
    score = partial(average_sensitivity, name, records, candidates)
    starts = [Settings()]
    for channel in range(len(CHANNELS)):
        starts.append(Settings(tuple(float(c == channel) for c in range(len(CHANNELS)))))
    best, value = max(((s, score(s)) for s in starts), key=lambda pair: pair[1])
    for _ in range(3):
        before = value
        options = [replace(best, radius=r, least=k) for r, k in itertools.product(RADII, range(4))]
        for channel in range(len(CHANNELS)):
            for weight in weights:
                changed = list(best.weights)
                changed[channel] = weight
                options.append(replace(best, weights=tuple(changed)))
            best, value = max([(best, value), *((o, score(o)) for o in options)], key=lambda pair: pair[1])
            options = []
        if value <= before:
            break
    return best, value


def candidates_of(names, processes: int) -> tuple[dict, dict]:
    """Records of the datasets, and the candidates of their volumes."""
    records = {name: load_records((name,)) for name in names}
    jobs = {r["volume"]: partial(_volume_blobs, r) for rs in records.values() for r in rs}
    found = dict(run_all(jobs, "blobs", processes))
    for result in found.values():
        if isinstance(result, DataError):
            raise result
    return records, found


def _volume_blobs(record: dict) -> np.ndarray:
    return blobs(read_volume(record).array, record["spacing"])


def detect(val: str, test: str, output: Path, processes: int = 1) -> None:
    """Tune on one dataset, run on another, and write the predictions."""
    records, candidates = candidates_of(dict.fromkeys([val, test]), processes)
    settings, value = tune(val, records[val], candidates)
    tested = average_sensitivity(test, records[test], candidates, settings)
    frame = frame_of(test)
    content = {r["volume"]: predict(r, candidates[r["volume"]], settings, frame).tolist() for r in records[test]}
    write_whole(output, json.dumps(content).encode())
    chosen = {name: weight for name, weight in zip(CHANNELS, settings.weights, strict=True) if weight}
    print(f"weights {chosen}, radius {settings.radius} sigma, from sigma {SIGMAS[settings.least]} mm")
    print(f"average sensitivity: {val} {value:.3f}, {test} {tested:.3f}; {output}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--val", default="phantom_deeplesion_1k_val", help="tuned on (default: %(default)s)")
    parser.add_argument("--test", default="phantom_deeplesion_1k_test", help="run on (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="default: %(default)s")
    add_output_argument(parser, "output/blobs/predictions.json", "predictions to write")


def run(args: argparse.Namespace) -> None:
    """Run the experiment."""
    detect(args.val, args.test, args.output, args.processes)
