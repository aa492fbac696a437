"""Hand-made sub-volumes and proposals."""

import numpy as np

from lens_d2.mining.lens.strategies import PatientVolume
from lens_d2.structures.detections import VolumeDetections
from lens_d2.structures.records import make_lesion, make_record

GROUPS = ("fused", "deeplesion", "luna", "lits")


def record(series="000001_01_01", lesions=(), slices=20, size=100, number="001-020"):
    """A sub-volume; ``lesions`` are (slice, box) of annotations."""
    name = f"{series}_{number}"
    return make_record(
        f"/nowhere/{series}",
        volume=name,
        expert="deeplesion",
        patient=series[:6],
        study=series[:9],
        series=series,
        size=(size, size, slices),
        spacing=(1.0, 1.0, 2.0),
        lesions=[make_lesion(f"{name}/{i}", [[z, *box]], key_slice=z) for i, (z, box) in enumerate(lesions)],
    )


def tracklets(*runs):
    """Detections of (first slice, boxes of successive slices or one for ``count`` slices, scores) each."""
    slice_boxes, owners = [], []
    for number, (first, boxes, scores) in enumerate(runs):
        scores = np.atleast_1d(np.asarray(scores, dtype=float))
        boxes = np.broadcast_to(np.asarray(boxes, dtype=float), (len(scores), 4))
        for i, (box, score) in enumerate(zip(boxes, scores, strict=True)):
            slice_boxes.append([first + i, *box, score])
            owners.append(number)
    slice_boxes, owners = np.array(slice_boxes, dtype=float).reshape(-1, 6), np.array(owners, dtype=int)
    count = len(runs)
    own = [slice_boxes[owners == n] for n in range(count)]
    boxes3d = [[*o[:, 1:3].mean(0), o[0, 0], *o[:, 3:5].mean(0), o[-1, 0]] for o in own]
    return VolumeDetections(
        np.array(boxes3d, dtype=float).reshape(-1, 6),
        np.array([o[:, 5].max() for o in own]),
        slice_boxes,
        owners,
        np.full((count, len(GROUPS) - 1), 0.25),
    )


def proposals(**groups):
    """{group: detections}; groups that are not given have none."""
    return {name: groups.get(name, tracklets()) for name in GROUPS}


def random_detections(rng, count=6, slices=20, size=100.0):
    """Tracklets anywhere, of any length."""
    runs = []
    for _ in range(count):
        corner, side = rng.uniform(0, size / 2, 2), rng.uniform(4, size / 2, 2)
        first = int(rng.integers(slices))
        length = int(rng.integers(1, slices - first + 1))
        runs.append((first, [*corner, *(corner + side)], rng.uniform(0.01, 1, length)))
    return tracklets(*runs)


def patient(*volumes):
    """A patient of (record, proposals) pairs."""
    return [PatientVolume.start(record, found) for record, found in volumes]
