"""Datasets of hand-made records that are registered for a test, and the outputs of a detector on them."""

from contextlib import contextmanager

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from lens_d2.evaluation.frames import frame_of
from lens_d2.io.formats import slice_range
from lens_d2.structures.detections import VolumeDetections

A, B = "000001_01_01_011-030", "000002_01_01_001-020"


@contextmanager
def registration():
    """register(records, evaluator_type, dataset): the name of a new dataset that counts as ``dataset`` does."""

    names = []

    def add(records, evaluator_type, dataset, **metadata):
        name = f"evaluated_{len(names)}"
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(
            thing_classes=["lesion"], expert="deeplesion", fully_labelled=True, evaluator_type=evaluator_type,
            truth_is_3d=evaluator_type != "p3d", file_frame=frame_of(dataset), **metadata,
        )  # fmt: skip
        names.append(name)
        return name

    try:
        yield add
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def record(name, lesions, size=(512, 512)):
    first, last = slice_range(name)
    return {
        "volume": name, "image_id": name, "first_slice": first, "num_slices": last - first + 1, "width": size[0],
        "height": size[1], "lesions": lesions,
    }  # fmt: skip


def lesion(boxes=(), box3d=None, key_slice=None, status="annotation"):
    return {"boxes": [list(b) for b in boxes], "box3d": box3d, "key_slice": key_slice, "status": status}


def scene():
    """Two sub-volumes; one detection right, one wrong, with boxes on their slices."""
    boxes = [[z, 100.0, 120.0, 140.0, 160.0] for z in (4, 5, 6)]
    records = [
        record(A, [lesion(boxes, [100.0, 120.0, 4, 140.0, 160.0, 6], 5), lesion(status="mined")]),
        record(B, []),
    ]
    slices = np.array(
        [[z, 100, 120, 140, 160, 0.9 - 0.1 * abs(z - 5)] for z in (4, 5, 6)] + [[9, 5, 5, 25, 25, 0.5]]
    )
    whole = np.array([[100.0, 120, 4, 140, 160, 6], [5, 5, 9, 25, 25, 9]])
    found = VolumeDetections(whole, np.array([0.9, 0.5]), slices, np.array([0, 0, 0, 1]))
    experts = {"fused": found, "lits": VolumeDetections()}
    return records, [
        {"volume": A, "detections": experts},
        {"volume": B, "detections": {"fused": VolumeDetections()}},
    ]
